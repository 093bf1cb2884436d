from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from clinalign.core.errors import UserError
from clinalign.data.phantoms.cxr import CXR_ATTRIBUTES, CXR_SUBGROUPS, CxrSettings, compose_report, draw_cxr
from clinalign.data.phantoms.cxr_scene import draw_scene
from clinalign.data.phantoms.types import Phantom, box_of

NONE = dict.fromkeys(CXR_ATTRIBUTES, 0)
STILL = CxrSettings(rotation_spread=0, zoom_spread=0, shift_spread=0)


def only(*names: str) -> dict[str, int]:
    return {**NONE, **dict.fromkeys(names, 1)}


def width_of(mask: np.ndarray) -> float:
    box = box_of(mask)
    assert box is not None
    return box[2] - box[0]


def ratio_on(phantom: Phantom) -> float:
    lungs = phantom.masks["lung_left"] | phantom.masks["lung_right"]
    return width_of(phantom.masks["heart"]) / width_of(lungs)


def middle_of(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean(), rows.mean()]) / mask.shape[0] + 0.5 / mask.shape[0]


def test_the_same_seed_gives_the_same_picture_and_another_seed_another():
    first, again, other = draw_cxr(7, 32), draw_cxr(7, 32), draw_cxr(8, 32)
    assert np.array_equal(first.image, again.image)
    assert (first.report, first.parameters, first.boxes) == (again.report, again.parameters, again.boxes)
    assert not np.array_equal(first.image, other.image)


def test_a_phantom_is_a_grey_rgb_picture_with_contrast():
    phantom = draw_cxr(1, 48)
    assert phantom.image.shape == (48, 48, 3)
    assert phantom.image.dtype == np.uint8
    assert np.array_equal(phantom.image[..., 0], phantom.image[..., 2])
    assert np.ptp(phantom.image) > 120
    assert all(phantom.subgroups[column] in values for column, values in CXR_SUBGROUPS.items())


@pytest.mark.parametrize("seed", range(4))
def test_a_seed_shows_the_same_scene_at_every_size(seed):
    small, large = draw_cxr(seed, 32), draw_cxr(seed, 64)
    assert (small.attributes, small.parameters, small.report) == (large.attributes, large.parameters, large.report)
    for name, box in small.boxes.items():
        # A box of whole pixels moves by at most one of the small picture's pixels, two at a mask's thin tip.
        assert box == pytest.approx(large.boxes[name], abs=2 / 32)
    halved = large.image[..., 0].reshape(32, 2, 32, 2).mean(axis=(1, 3))
    # Grain differs and has a standard deviation of at most 5 grey levels; edges differ where they are supersampled.
    assert np.abs(halved - small.image[..., 0]).mean() < 8


def test_given_attributes_are_honoured_in_every_combination():
    for seed, values in enumerate(itertools.product((0, 1), repeat=len(CXR_ATTRIBUTES))):
        given = dict(zip(CXR_ATTRIBUTES, values))
        phantom = draw_cxr(seed, 32, given)
        assert phantom.attributes == given
        assert {name for name in CXR_ATTRIBUTES if name in phantom.masks} == {name for name in given if given[name]}
        assert all(mask.any() for mask in phantom.masks.values())


def test_even_an_attribute_of_prevalence_zero_can_be_asked_for():
    settings = CxrSettings(prevalence={"nodule": 0.0})
    assert draw_scene(3, {"nodule": 1}, settings).attributes["nodule"] == 1
    assert not any(draw_scene(seed, {}, settings).attributes["nodule"] for seed in range(200))


def test_prevalence_and_correlation_hold_within_binomial_error():
    settings = CxrSettings(
        prevalence={"cardiomegaly": 0.3, "device": 0.35, "nodule": 0.05}, correlations={("device", "cardiomegaly"): 0.7}
    )
    drawn = [draw_scene(seed, {}, settings).attributes for seed in range(1500)]

    def share(cases, name):
        return sum(case[name] for case in cases) / len(cases)

    def error(p, n):
        return 4 * math.sqrt(p * (1 - p) / n)  # four standard errors

    enlarged = [case for case in drawn if case["cardiomegaly"]]
    others = [case for case in drawn if not case["cardiomegaly"]]
    for name, p in {"cardiomegaly": 0.3, "device": 0.35, "nodule": 0.05, "effusion": 0.35}.items():
        assert abs(share(drawn, name) - p) < error(p, len(drawn)), name
    assert abs(share(enlarged, "device") - 0.7) < error(0.7, len(enlarged))
    assert abs(share(others, "device") - 0.2) < error(0.2, len(others))  # (0.35 - 0.7 * 0.3) / 0.7
    given = [draw_scene(seed, {"device": 1}, settings).attributes for seed in range(300)]
    assert abs(share(given, "cardiomegaly") - 0.6) < error(0.6, 300)  # Bayes: 0.7 * 0.3 / 0.35


def test_subgroup_weights_are_followed():
    settings = CxrSettings(subgroups={"sex": {"male": 0.0}, "view": {"PA": 0, "AP": 3}})
    groups = [draw_scene(seed, {}, settings).subgroups for seed in range(60)]
    assert {group["sex"] for group in groups} == {"female"}
    assert {group["view"] for group in groups} == {"AP"}
    assert {group["age_band"] for group in groups} == set(CXR_SUBGROUPS["age_band"])


@pytest.mark.parametrize("name", ["effusion", "consolidation", "pneumothorax", "nodule", "device"])
def test_the_reports_left_is_the_pictures_right(name):
    seen = set()
    for seed in range(16):
        phantom = draw_cxr(seed, 64, only(name), STILL)
        side = phantom.parameters[f"{name}_side"]
        word = "left" if side > 0 else "right"
        assert f" {word} " in f" {phantom.report.lower()} "
        assert {"left": "right", "right": "left"}[word] not in phantom.report.lower()
        columns = np.nonzero(phantom.masks[name])[1] + 0.5
        # A device's lead crosses the midline, but where it enters lies farthest out.
        farthest = columns[np.abs(columns - 32).argmax()]
        assert (farthest > 32) == (word == "left")
        if name != "device":
            lung = phantom.masks[f"lung_{word}"]
            assert (phantom.masks[name] & lung).sum() > 0.9 * phantom.masks[name].sum()
        seen.add(word)
    assert seen == {"left", "right"}


@pytest.mark.parametrize("name", ["consolidation", "nodule"])
def test_the_reports_zone_is_where_the_mask_lies(name):
    heights: dict[str, list[float]] = {"upper": [], "middle": [], "lower": []}
    for seed in range(30):
        phantom = draw_cxr(seed, 64, only(name), STILL)
        word = next(zone for zone in heights if zone in phantom.report)
        side = "left" if "left" in phantom.report else "right"
        _, top, _, bottom = phantom.boxes[f"lung_{side}"]
        heights[word].append((middle_of(phantom.masks[name])[1] - top) / (bottom - top))
    assert all(heights.values())
    assert max(heights["upper"]) < min(heights["middle"])
    assert max(heights["middle"]) < min(heights["lower"])


def test_boxes_are_the_tight_boxes_of_the_masks():
    phantom = draw_cxr(5, 64, dict.fromkeys(CXR_ATTRIBUTES, 1))
    assert set(phantom.boxes) == set(phantom.masks) == {"lung_left", "lung_right", "heart", *CXR_ATTRIBUTES}
    for name, mask in phantom.masks.items():
        assert mask.shape == (64, 64)
        assert phantom.boxes[name] == box_of(mask)


def test_the_cardiothoracic_ratio_separates_cardiomegaly_on_the_picture():
    large, normal = only("cardiomegaly"), NONE
    ratios = {
        kind: [ratio_on(draw_cxr(seed, 64, given, STILL)) for seed in range(25)]
        for kind, given in (("large", large), ("normal", normal))
    }
    assert min(ratios["large"]) > 0.55
    assert max(ratios["normal"]) < 0.52
    phantom = draw_cxr(2, 256, large, STILL)
    assert ratio_on(phantom) == pytest.approx(phantom.parameters["cardiothoracic_ratio"], abs=0.02)  # 2 pixels in 180


@pytest.mark.parametrize("name", CXR_ATTRIBUTES)
def test_a_finding_changes_the_picture_where_its_mask_says(name):
    for seed in range(6):
        # Same seed: same patient, same posture, same grain.
        healthy, ill = draw_cxr(seed, 32, NONE), draw_cxr(seed, 32, only(name))
        assert healthy.subgroups == ill.subgroups
        change = np.abs(ill.image[..., 0].astype(float) - healthy.image[..., 0])
        # Above grain of at most 5 grey levels; a finding within it would be invisible.
        assert np.quantile(change[ill.masks[name]], 0.8) > 12


def test_posture_moves_the_lungs_as_stated():
    # The spreads change nothing but posture: the same seed has the same chest.
    for seed in range(6):
        upright = draw_cxr(seed, 128, NONE, STILL)
        moved = draw_cxr(seed, 128, NONE, CxrSettings(rotation_spread=5, zoom_spread=0.03, shift_spread=0.02))
        numbers = moved.parameters
        angle = math.radians(numbers["rotation"])
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        for name in ("lung_left", "lung_right"):
            start = middle_of(upright.masks[name]) - 0.5
            shift = np.array([numbers["shift_x"], numbers["shift_y"]])
            expected = numbers["zoom"] * turn @ start + shift + 0.5
            # A tenth of a pixel of rasterisation, and half a pixel where a lung's tip is cut by the picture's edge.
            assert middle_of(moved.masks[name]) == pytest.approx(expected, abs=0.6 / 128)
            growth = moved.masks[name].sum() / upright.masks[name].sum()
            assert growth == pytest.approx(numbers["zoom"] ** 2, rel=0.03)


def test_posture_stays_within_two_spreads():
    numbers = [draw_scene(seed, {}, CxrSettings(rotation_spread=5)).parameters for seed in range(300)]
    turns = np.array([number["rotation"] for number in numbers])
    assert np.abs(turns).max() <= 10
    assert turns.std() == pytest.approx(5 * 0.88, rel=0.12)  # truncation at two shrinks the spread to 0.88


def test_no_finding_leaves_the_picture_at_the_widest_posture():
    settings = CxrSettings(rotation_spread=10, zoom_spread=0.1, shift_spread=0.06)
    for seed in range(60):
        phantom = draw_cxr(seed, 32, dict.fromkeys(CXR_ATTRIBUTES, 1), settings)
        assert all(phantom.masks[name].any() for name in CXR_ATTRIBUTES)


def test_reports_name_what_is_there_and_fit_the_text_encoder():
    assert draw_cxr(0, 32, NONE).report == "Frontal chest radiograph. No acute cardiopulmonary abnormality."
    numbers = {"effusion_side": 1.0, "effusion_extent": 0.0, "nodule_side": -1.0, "nodule_zone": 2.0}
    assert compose_report(only("cardiomegaly", "effusion", "nodule"), numbers) == (
        "Frontal chest radiograph. Cardiomegaly. Small left pleural effusion. Nodule in the right lower zone."
    )
    absent = compose_report(only("cardiomegaly"), {}, negatives=True)
    assert "Cardiomegaly." in absent
    assert "No pneumothorax." in absent
    assert "Normal heart size" not in absent
    for seed in range(40):
        for negatives in (False, True):
            report = draw_cxr(seed, 16, settings=CxrSettings(report_negatives=negatives)).report
            assert len(report.split()) < 40
    assert len(draw_cxr(1, 16, dict.fromkeys(CXR_ATTRIBUTES, 1)).report.split()) < 40


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prevalence": {"efusion": 0.2}}, "did you mean 'effusion'"),
        ({"prevalence": {"effusion": 1.2}}, "from 0 to 1"),
        ({"subgroups": {"gender": {}}}, "subgroups names 'gender'"),
        ({"subgroups": {"sex": {"femal": 1}}}, "did you mean 'female'"),
        ({"subgroups": {"sex": {"female": -1}}}, "at least 0"),
        ({"subgroups": {"sex": {"female": 0, "male": 0}}}, "at least one a positive weight"),
        ({"rotation_spread": 30}, "rotation_spread is 30: give a number from 0 to 10"),
        ({"correlations": {"device": 0.5}}, "give a pair"),
        ({"correlations": {("device", "heart"): 0.5}}, "correlations names 'heart'"),
        ({"correlations": {("device", "nodule"): -1}}, "from 0 to 1"),
        ({"correlations": {("device", "nodule"): 0.3, ("device", "effusion"): 0.3}}, "two parents"),
        ({"correlations": {("device", "nodule"): 0.3, ("nodule", "device"): 0.3}}, "circle"),
        ({"prevalence": {"device": 0.1, "nodule": 0.5}, "correlations": {("device", "nodule"): 0.7}}, "0.00 to 0.20"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_one_clear_line(settings, message):
    with pytest.raises(UserError, match=message) as caught:
        CxrSettings(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 32), "seed is -1"),
        ((0, 8), "16 to 1024"),
        ((0, 32, {"nodul": 1}), "did you mean 'nodule'"),
        ((0, 32, {"nodule": 2}), "give 0 or 1"),
    ],
)
def test_a_wrong_argument_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        draw_cxr(*arguments)


def test_a_report_without_the_side_of_a_finding_is_refused():
    with pytest.raises(UserError, match="effusion_side"):
        compose_report(only("effusion"), {})

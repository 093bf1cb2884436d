"""Skin phantoms: the same seed, the same picture; labels honoured; masks that say where things are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from clinalign.core.errors import UserError
from clinalign.data.phantoms import drawing
from clinalign.data.phantoms.skin import SkinSettings, draw_skin
from clinalign.data.phantoms.skin_settings import ARTIFACTS, DEFAULT_SETTINGS, draw_labels
from clinalign.data.phantoms.types import Phantom, box_of

CLEAN = dict.fromkeys(ARTIFACTS, 0)
WITH_BKL = SkinSettings(diagnoses={"MEL": 0.3, "NV": 0.5, "BKL": 0.2})


def labels_of(count: int, settings: SkinSettings) -> list[tuple[dict[str, int], dict[str, str], str]]:
    """Draw labels alone, which is what prevalences are about, without the cost of pictures."""
    return [draw_labels(np.random.default_rng(seed), {}, settings, {}) for seed in range(count)]


def difference(a: Phantom, b: Phantom) -> np.ndarray:
    """Largest change over the channels, in grey levels."""
    return np.abs(a.image.astype(int) - b.image.astype(int)).max(axis=2)


def test_same_seed_same_picture_and_other_seed_another() -> None:
    first, again, other = draw_skin(7, 32), draw_skin(7, 32), draw_skin(8, 32)
    assert np.array_equal(first.image, again.image)
    assert (first.attributes, first.subgroups, first.boxes, first.parameters) == (
        again.attributes,
        again.subgroups,
        again.boxes,
        again.parameters,
    )
    assert difference(first, other).mean() > 5  # another scene, not another noise


def test_a_phantom_has_the_documented_form() -> None:
    phantom = draw_skin(3, 48, {"hair": 1, "ruler": 0})
    assert phantom.image.shape == (48, 48, 3)
    assert phantom.image.dtype == np.uint8
    assert tuple(phantom.attributes) == ("hair", "gel_bubble", "ruler", "ink", "dark_corner", "MEL", "NV")
    assert set(phantom.subgroups) == {"skin_tone", "age_band", "sex", "site"}
    present = {name for name in ARTIFACTS if phantom.attributes[name]}
    assert set(phantom.masks) == present | {"lesion"}
    assert all(mask.shape == (48, 48) and mask.dtype == np.bool_ for mask in phantom.masks.values())
    assert phantom.report is None


@pytest.mark.parametrize("seed", range(6))
def test_given_attributes_are_honoured_and_leave_the_others_alone(seed: int) -> None:
    free = draw_skin(seed, 16, settings=WITH_BKL)
    for name in ARTIFACTS:
        forced = draw_skin(seed, 16, {name: 1 - free.attributes[name]}, WITH_BKL)
        assert forced.attributes == {**free.attributes, name: 1 - free.attributes[name]}
        assert forced.subgroups == free.subgroups
    for name in ("MEL", "NV", "BKL"):
        assert draw_skin(seed, 16, {name: 1}, WITH_BKL).attributes[name] == 1
        assert draw_skin(seed, 16, {name: 0}, WITH_BKL).attributes[name] == 0
    attributes = draw_skin(seed, 16, {"MEL": 0, "NV": 0}, WITH_BKL).attributes
    assert [attributes[name] for name in ("MEL", "NV", "BKL")] == [0, 0, 1]


def test_subgroups_can_be_given() -> None:
    light = draw_skin(5, 32, CLEAN, subgroups={"skin_tone": "I-II"})
    dark = draw_skin(5, 32, CLEAN, subgroups={"skin_tone": "V-VI"})
    assert (light.subgroups["skin_tone"], dark.subgroups["skin_tone"]) == ("I-II", "V-VI")
    assert light.image.mean() > dark.image.mean() + 40


def test_prevalences_and_shares_are_kept() -> None:
    count = 3000
    drawn = labels_of(count, WITH_BKL)
    expected = {**WITH_BKL.prevalence, **WITH_BKL.diagnoses}
    for name, share in expected.items():
        measured = np.mean([attributes[name] for attributes, _, _ in drawn])
        assert abs(measured - share) < 4 * np.sqrt(share * (1 - share) / count), name  # four binomial deviations
    for column, shares in WITH_BKL.subgroups.items():
        for value, share in shares.items():
            measured = np.mean([groups[column] == value for _, groups, _ in drawn])
            assert abs(measured - share) < 4 * np.sqrt(share * (1 - share) / count), (column, value)


def test_correlations_hold_where_their_condition_does_and_nowhere_else() -> None:
    settings = SkinSettings(correlations={("ruler", "MEL"): 0.8, ("ink", "skin_tone=V-VI"): 0.0})
    drawn = labels_of(3000, settings)
    melanoma = [attributes["ruler"] for attributes, _, diagnosis in drawn if diagnosis == "MEL"]
    naevus = [attributes["ruler"] for attributes, _, diagnosis in drawn if diagnosis == "NV"]
    assert abs(np.mean(melanoma) - 0.8) < 4 * np.sqrt(0.8 * 0.2 / len(melanoma))
    assert abs(np.mean(naevus) - 0.2) < 4 * np.sqrt(0.2 * 0.8 / len(naevus))
    assert not any(attributes["ink"] for attributes, groups, _ in drawn if groups["skin_tone"] == "V-VI")
    assert any(attributes["ink"] for attributes, groups, _ in drawn if groups["skin_tone"] == "I-II")


@pytest.mark.parametrize("name", ARTIFACTS)
@pytest.mark.parametrize("size", [32, 64])
def test_an_artifact_changes_its_mask_and_nothing_else(name: str, size: int) -> None:
    for seed in range(8):
        without, with_it = draw_skin(seed, size, CLEAN), draw_skin(seed, size, {**CLEAN, name: 1})
        change = difference(without, with_it)
        mask = with_it.masks[name]
        # a pixel outside is covered by less than the mask's threshold of 0.08: it changes by at most 0.08 * 255 = 20.4
        assert change[~mask].max() <= 21
        assert change[~mask].mean() < 1
        assert mask.sum() >= 0.012 * size**2  # enough of it to be seen
        assert np.median(change[mask]) >= 12  # and it can be told from what it covers
        assert np.array_equal(without.masks["lesion"], with_it.masks["lesion"])


def test_the_dark_corner_hides_other_artifacts_from_their_masks() -> None:
    hidden = 0
    for seed in range(5):
        open_field = draw_skin(seed, 64, {**CLEAN, "hair": 1}).masks["hair"]
        phantom = draw_skin(seed, 64, {**CLEAN, "hair": 1, "dark_corner": 1})
        lost = open_field & ~phantom.masks["hair"]
        assert not (phantom.masks["hair"] & ~open_field).any()
        assert (lost & ~phantom.masks["dark_corner"]).sum() <= 2  # a pixel at the thresholds of both may tip over
        hidden += int(lost.sum())
    assert hidden > 50


@pytest.mark.parametrize("diagnosis", ["MEL", "NV", "BKL"])
def test_the_lesion_is_darker_than_the_skin_around_it(diagnosis: str) -> None:
    for seed in range(8):
        phantom = draw_skin(seed, 64, {**CLEAN, diagnosis: 1}, WITH_BKL)
        mask = phantom.masks["lesion"]
        grey = phantom.image.mean(axis=2)
        assert 0.02 < mask.mean() < 0.5
        assert grey[mask].mean() < grey[~mask].mean() - 10


def test_melanoma_is_larger_less_regular_and_more_varied_than_a_naevus() -> None:
    def measure(diagnosis: str) -> np.ndarray:
        rows = []
        for seed in range(30):
            phantom = draw_skin(seed, 64, {**CLEAN, diagnosis: 1}, subgroups={"skin_tone": "I-II"})
            mask = phantom.masks["lesion"]
            edge = mask & ~ndimage.binary_erosion(mask)
            compactness = edge.sum() ** 2 / mask.sum()
            colours = phantom.image[mask].astype(float)
            rows.append(
                (mask.mean(), compactness, colours.std(axis=0).mean(), phantom.parameters["lesion_irregularity"])
            )
        return np.mean(rows, axis=0)

    # area, compactness and spread of colour differ by far more than a quarter on average; none may be near equality
    assert (measure("MEL") > 1.25 * measure("NV")).all()


def test_boxes_enclose_their_masks_tightly() -> None:
    phantom = draw_skin(11, 64, dict.fromkeys(ARTIFACTS, 1))
    for name, (x0, y0, x1, y1) in phantom.boxes.items():
        rows, columns = np.nonzero(phantom.masks[name])
        assert (columns.min(), rows.min()) == (round(x0 * 64), round(y0 * 64))
        assert (columns.max() + 1, rows.max() + 1) == (round(x1 * 64), round(y1 * 64))
    assert set(phantom.boxes) == set(phantom.masks)
    assert box_of(np.zeros((8, 8), bool)) is None


@pytest.mark.parametrize("seed", range(8))
def test_the_scene_is_the_same_at_every_size(seed: int) -> None:
    small, large = draw_skin(seed, 32), draw_skin(seed, 64)
    assert (small.attributes, small.subgroups, small.parameters) == (
        large.attributes,
        large.subgroups,
        large.parameters,
    )
    shrunk = drawing.shrink(large.image.transpose(2, 0, 1).astype(np.float32)).transpose(1, 2, 0)
    change = np.abs(shrunk - small.image)
    # fine grain and thin lines are sampled at other places, so single pixels differ; the picture does not
    assert change.mean() < 3
    for name, mask in small.masks.items():
        expected = drawing.shrink(large.masks[name].astype(np.float32)) > 0.3
        assert (mask & expected).sum() / (mask | expected).sum() > 0.75, name


def test_smooth_noise_has_unit_deviation_and_does_not_depend_on_the_size() -> None:
    coarse, fine = (drawing.smooth_noise(np.random.default_rng(0), n, 20) for n in (60, 180))
    assert abs(coarse.std() - 1) < 0.15  # 23 x 23 independent knots: a few per cent of sampling error
    assert np.allclose(coarse, fine[1::3, 1::3], atol=1e-4)  # the middle pixel of three lies where the coarse one does


def test_products_in_slices_equal_whole_products() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.random((300, 90), np.float32), rng.random((90, 310), np.float32)
    assert np.allclose(drawing._product(left, right), left @ right, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: draw_skin(0, 32, {"hairs": 1}), "did you mean 'hair'"),
        (lambda: draw_skin(0, 32, {"hair": 2}), "give 0 or 1"),
        (lambda: draw_skin(0, 32, {"MEL": 1, "NV": 1}), "one diagnosis"),
        (lambda: draw_skin(0, 32, {"MEL": 0, "NV": 0}), "leave one open"),
        (lambda: draw_skin(0, 32, {"BKL": 1}), "unknown skin attribute 'BKL'"),
        (lambda: draw_skin(0, 32, subgroups={"skin_tones": "I-II"}), "did you mean 'skin_tone'"),
        (lambda: draw_skin(0, 32, subgroups={"skin_tone": "IV"}), "unknown skin_tone 'IV'"),
        (lambda: draw_skin(-1, 32), "give 0 or more"),
        (lambda: draw_skin(0, 8), "at least 16"),
        (lambda: SkinSettings(prevalence={"ruller": 0.5}), "did you mean 'ruler'"),
        (lambda: SkinSettings(prevalence={"ruler": 1.5}), "from 0 to 1"),
        (lambda: SkinSettings(diagnoses={"MEL": 0.0}), "all shares"),
        (lambda: SkinSettings(diagnoses={"MEL": -1.0, "NV": 2.0}), "0 or more"),
        (lambda: SkinSettings(diagnoses={"BCC": 1.0}), "unknown name 'BCC'"),
        (lambda: SkinSettings(correlations={("ruler", "BKL"): 0.5}), "unknown condition 'BKL'"),
    ],
)
def test_mistakes_are_told_in_one_line(call, words: str) -> None:
    with pytest.raises(UserError, match=words) as told:
        call()
    assert "\n" not in str(told.value)


def test_a_share_of_zero_never_occurs() -> None:
    settings = SkinSettings(diagnoses={"MEL": 0.0, "NV": 1.0}, prevalence={"hair": 0.0})
    assert not any(
        attributes["MEL"] or attributes["hair"] or attributes["ink"] for attributes, _, _ in labels_of(200, settings)
    )
    assert DEFAULT_SETTINGS.attribute_names == settings.attribute_names


@pytest.mark.slow
def test_every_attribute_can_be_learnt_at_32_pixels() -> None:
    """A three-layer network of 50 thousand weights tells each attribute on new phantoms (AUC above 0.95)."""
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("sklearn.metrics")
    torch.manual_seed(0)
    settings = SkinSettings(prevalence=dict.fromkeys(ARTIFACTS, 0.4), diagnoses={"MEL": 0.4, "NV": 0.4, "BKL": 0.2})
    phantoms = [draw_skin(seed, 32, settings=settings) for seed in range(2000)]
    images = torch.tensor(np.stack([p.image for p in phantoms])).permute(0, 3, 1, 2).float() / 255 - 0.5
    labels = torch.tensor([list(p.attributes.values()) for p in phantoms]).float()

    def block(inputs: int, outputs: int) -> torch.nn.Module:
        convolution = torch.nn.Conv2d(inputs, outputs, 3, padding=1)
        return torch.nn.Sequential(convolution, torch.nn.BatchNorm2d(outputs), torch.nn.ReLU(), torch.nn.MaxPool2d(2))

    head = (
        torch.nn.AdaptiveMaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Dropout(0.3),
        torch.nn.Linear(256, labels.shape[1]),
    )
    network = torch.nn.Sequential(block(3, 24), block(24, 48), block(48, 64), *head)
    epochs, batch = 14, 60
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=epochs * 1500 // batch)
    for _ in range(epochs):
        for rows in torch.randperm(1500).split(batch):
            flipped = images[rows].flip([axis for axis in (2, 3) if torch.rand(1) < 0.5])
            loss = torch.nn.functional.binary_cross_entropy_with_logits(network(flipped), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    network.eval()
    with torch.no_grad():
        scores = network(images[1500:])
    for column, name in enumerate(settings.attribute_names):
        assert metrics.roc_auc_score(labels[1500:, column], scores[:, column]) > 0.95, name

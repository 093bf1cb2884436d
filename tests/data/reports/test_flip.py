from __future__ import annotations

import pytest

from clinalign.core.errors import UserError
from clinalign.data.reports.flip import make_flips
from clinalign.data.reports.labeller import FINDINGS, label_report

PHANTOM = "Frontal chest radiograph. Cardiomegaly. Small left pleural effusion. Nodule in the right upper zone."


def texts(report: str, kind: str, finding: str) -> list[str]:
    return [flip.text for flip in make_flips(report, [kind]) if flip.finding == finding]


def test_each_kind_changes_one_clause_of_a_phantoms_report() -> None:
    start = "Frontal chest radiograph. Cardiomegaly."
    nodule = "Nodule in the right upper zone."
    effusion = "Small left pleural effusion."
    assert texts(PHANTOM, "side", "Pleural Effusion") == [f"{start} Small right pleural effusion. {nodule}"]
    assert texts(PHANTOM, "side", "Lung Lesion") == [f"{start} {effusion} Nodule in the left upper zone."]
    assert texts(PHANTOM, "zone", "Lung Lesion") == [f"{start} {effusion} Nodule in the right lower zone."]
    assert texts(PHANTOM, "remove", "Pleural Effusion") == [f"{start} {nodule}"]
    assert texts(PHANTOM, "negate", "Cardiomegaly") == [
        f"Frontal chest radiograph. Normal heart size. {effusion} {nodule}"
    ]
    (added,) = texts(PHANTOM, "add", "Support Devices")
    assert added in {f"{PHANTOM} Left pacemaker.", f"{PHANTOM} Right pacemaker."}


def test_a_denied_finding_is_asserted_where_it_was_denied() -> None:
    (text,) = texts("Frontal chest radiograph. No pleural effusion. No nodule.", "add", "Pleural Effusion")
    assert label_report(text).labels["Pleural Effusion"] == 1
    assert text.endswith("No nodule.")


def test_a_film_without_findings_gets_one_and_a_film_with_one_loses_it() -> None:
    normal = "Frontal chest radiograph. No acute cardiopulmonary abnormality."
    flips = make_flips(normal)
    assert {flip.kind for flip in flips} == {"add"}
    assert len(flips) == 6
    assert not any("No acute" in flip.text for flip in flips)
    assert texts("Frontal chest radiograph. Cardiomegaly.", "remove", "Cardiomegaly") == [normal]


def test_free_text_moves_the_word_that_places_the_finding() -> None:
    assert texts("Left-sided port. RIGHT effusion, no pneumothorax on the left.", "side", "Pleural Effusion") == [
        "Left-sided port. LEFT effusion, no pneumothorax on the left."
    ]
    assert texts("Bibasilar opacities.", "zone", "Lung Opacity") == ["Biapical opacities."]
    # findings and impression agree afterwards
    assert texts("Moderate left effusion seen. Left effusion.", "side", "Pleural Effusion") == [
        "Moderate right effusion seen. Right effusion."
    ]


def test_a_list_of_denials_is_told_apart() -> None:
    (text,) = texts("No consolidation, pneumothorax or effusion.", "add", "Pneumothorax")
    labels = label_report(text).labels
    assert (labels["Consolidation"], labels["Pneumothorax"], labels["Pleural Effusion"]) == (0, 1, 0)


@pytest.mark.parametrize(
    ("report", "kind", "why"),
    [
        ("Bilateral pleural effusions.", "side", "both sides have no other side"),
        ("Right middle lobe opacity.", "side", "a left lung has no middle lobe"),
        ("Nodule in the left middle zone.", "zone", "the middle has no counterpart"),
        ("Possible left effusion.", "side", "what is uncertain is not asserted"),
        ("Left effusion and atelectasis.", "remove", "two findings in a sentence"),
        ("Heart size is normal.", "negate", "nothing is there"),
        ("", "remove", "nothing is said"),
    ],
)
def test_what_cannot_be_flipped_is_left_out(report: str, kind: str, why: str) -> None:
    assert make_flips(report, [kind]) == [], why


def test_nothing_is_added_to_lungs_that_are_called_clear() -> None:
    assert "Consolidation" not in {flip.finding for flip in make_flips("The lungs are clear.", ["add"])}


def test_flips_are_the_same_each_time_and_differ_from_the_report() -> None:
    flips = make_flips(PHANTOM)
    assert flips == make_flips(PHANTOM)
    assert len({flip.text for flip in flips} | {PHANTOM}) == len(flips) + 1


def test_every_flip_changes_the_labels_of_its_finding_and_of_no_other() -> None:
    before = label_report(PHANTOM)
    for flip in make_flips(PHANTOM):
        after = label_report(flip.text)
        changed = {
            name
            for name in FINDINGS[1:]
            if before.labels[name] != after.labels[name] or before.places(name) != after.places(name)
        }
        assert changed == {flip.finding}


def test_unknown_words_are_told() -> None:
    with pytest.raises(UserError, match="'sides' is not a kind of flip: did you mean 'side'"):
        make_flips(PHANTOM, ["sides"])
    with pytest.raises(UserError, match="'Effusion' is not a finding that can be added"):
        make_flips(PHANTOM, added=["Effusion"])


@pytest.mark.slow
def test_real_impressions_give_confirmed_flips(indiana: list) -> None:
    count = 0
    for report in indiana[:400]:
        before = label_report(report.impression)
        for flip in make_flips(report.impression, ["side", "zone", "remove", "negate"]):
            after = label_report(flip.text)
            assert (after.labels, after.places(flip.finding)) != (before.labels, before.places(flip.finding))
            count += 1
    assert count > 150

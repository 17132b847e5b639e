"""Names match exactly once folded: never parts of them, in the order of the aliases, nothing passed over in silence."""

from __future__ import annotations

import pytest

from doseledger.core.errors import BadCase
from doseledger.core.project.protocol import Protocol, load_protocol
from doseledger.ingest.patient.roi_names import match_names

PLAIN = ["PTV70", "PTV56", "Prostate", "Rectum", "Bladder", "Femur_L", "Femur_R"]


@pytest.fixture(scope="module")
def protocol(repository) -> Protocol:
    return load_protocol(repository / "validation/cohorts/phantom/protocol.yaml")


def renamed(old: str, new: str) -> list[str]:
    return [new if name == old else name for name in PLAIN]


@pytest.mark.parametrize(
    ("structure", "roi"),
    [
        ("PTV70", "PTV_70"),
        ("PTV70", "PTV 70Gy"),
        ("PTV70", "ptv-70"),
        ("Prostate", "CTV_Prostate"),
        ("Rectum", "Rect"),
        ("Bladder", "Blad"),
        ("Femur_L", "FemoralHead_L"),
        ("Femur_L", "Left Femur"),
        ("Femur_R", "RIGHT FEMUR"),
    ],
)
def test_the_clinics_spellings_are_known(protocol, structure, roi):
    match = match_names(renamed(structure, roi), (), protocol, "case_1")
    assert match.chosen[structure] == roi
    assert match.used[structure]["roi"] == roi
    assert match.unmatched == []


@pytest.mark.parametrize("roi", ["BowelBag", "SmallBowel", "Bowel_Small"])
def test_optional_structures_have_aliases_too(protocol, roi):
    assert match_names([*PLAIN, roi], (), protocol, "case_1").chosen["Bowel"] == roi


@pytest.mark.parametrize("help_roi", ["zPTV70_opt", "PTV70-PRV", "Ring_PTV70", "PTV 70 minus Rectum", "PTV70_eval"])
def test_a_planning_help_is_never_taken_for_the_target(protocol, help_roi):
    message = f'no ROI matches PTV70 .*only what was made for planning is named like it: "{help_roi}"'
    with pytest.raises(BadCase, match=message):
        match_names(renamed("PTV70", help_roi), (), protocol, "case_1")
    match = match_names([help_roi, *PLAIN], (), protocol, "case_1")
    assert match.chosen["PTV70"] == "PTV70"
    assert match.unmatched == [help_roi]


def test_the_first_alias_in_the_protocols_order_wins_and_the_others_are_recorded(protocol):
    match = match_names(["Harnblase", "Blad", *renamed("Bladder", "Urinary Bladder")], (), protocol, "case_1")
    assert match.chosen["Bladder"] == "Blad"
    assert match.used["Bladder"] == {"roi": "Blad", "others": ["Harnblase", "Urinary Bladder"]}


def test_left_is_never_right(protocol):
    with pytest.raises(BadCase, match=r'no ROI matches Femur_L .*nearest is "Femur_M"'):
        match_names(renamed("Femur_L", "Femur_M"), (), protocol, "case_1")


def test_an_empty_roi_is_named_as_the_reason(protocol):
    with pytest.raises(BadCase, match='the ROI "Rectum" of Rectum has no contours'):
        match_names(PLAIN, {"Rectum"}, protocol, "case_1")


def test_every_missing_structure_is_said_at_once(protocol):
    with pytest.raises(BadCase, match=r"no ROI matches Rectum .*no ROI matches Bladder .*prostate_sib.yaml"):
        match_names([name for name in PLAIN if name not in ("Rectum", "Bladder")], (), protocol, "case_1")


def test_the_outline_is_not_listed_as_unmatched(protocol):
    match = match_names([*PLAIN, "BODY", "Couch"], (), protocol, "case_1")
    assert match.unmatched == ["Couch"]


def test_two_rois_of_one_name_matter_only_where_a_structure_claims_it(protocol):
    assert match_names([*PLAIN, "Ring", "ring"], (), protocol, "case_1").unmatched == ["Ring", "ring"]
    with pytest.raises(BadCase, match='two ROIs are called "Rectum" and "RECTUM"'):
        match_names([*PLAIN, "RECTUM"], (), protocol, "case_1")
    # One of them is empty: there is nothing to choose between.
    assert match_names([*PLAIN, "RECTUM"], {"RECTUM"}, protocol, "case_1").chosen["Rectum"] == "Rectum"

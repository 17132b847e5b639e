"""Hints: a floor of likeness, never across left and right, one ROI for one structure; in five languages."""

from __future__ import annotations

import random

import pytest

from doseledger.core.errors import BadCase, SkippedCase
from doseledger.core.project.protocol import Protocol, load_protocol
from doseledger.dicom.plan.read import TargetDose
from doseledger.ingest.names.clues import Clues
from doseledger.ingest.names.hints import Clue, find_hints
from doseledger.ingest.names.nomenclature import load_nomenclature, load_organs, read_name, standard_name
from doseledger.ingest.patient.roi_names import match_names

# What five clinics call the same things: German, French, Spanish, Dutch, TG-263.
CLINICS = {
    "Rectum": ("Enddarm", "Rectum 2", "Recto", "Endeldarm", "Rectal"),
    "Bladder": ("Blase", "Vessie", "Vejiga", "Blaas", "Bladder_CT"),
    "Femur_L": ("Hüftkopf li", "Tête fémorale G", "Cabeza femoral izq.", "Heupkop links", "Femur_Neck_L"),
    "Femur_R": ("Hüftkopf re", "Tête fémorale D", "Cabeza femoral dcha", "Heupkop rechts", "Femur_Neck_R"),
    "Prostate": ("Vorsteherdrüse", "Prostate 1", "Próstata", "Prostaat", "Prost"),
    "Bowel": ("Dünndarm", "Grêle", "Asas intestinales", "Dunne darm", "Intestine"),
}
STRANGERS = ["Penis", "Gallenblase", "Marker", "Artefakt", "L5", "Haut", "Couch Surface", "Ring 2cm", "Rektumwand"]


@pytest.fixture(scope="module")
def protocol(repository) -> Protocol:
    return load_protocol(repository / "validation" / "cohorts" / "prostate" / "protocol.yaml")


def hints(protocol: Protocol, absent: list[str], free: list[str | Clue]) -> dict[str, str]:
    clues = [item if isinstance(item, Clue) else Clue(item) for item in free]
    found = find_hints([protocol.structure(name) for name in absent], clues, protocol)
    return {name: hint.roi for name, hint in found.items()}


@pytest.mark.parametrize("clinic", range(5))
def test_every_clinics_names_are_proposed_for_the_right_structure_and_side(protocol, clinic):
    names = {structure: called[clinic] for structure, called in CLINICS.items()}
    assert hints(protocol, list(names), list(names.values())) == names


@pytest.mark.parametrize("clinic", range(5))
def test_a_hint_moves_neither_with_the_order_of_rois_nor_with_strangers(protocol, clinic):
    names = {structure: called[clinic] for structure, called in CLINICS.items()}
    for seed in range(5):
        free = [*names.values(), *STRANGERS]
        random.Random(seed).shuffle(free)
        assert hints(protocol, list(names), free) == names


@pytest.mark.parametrize(
    ("absent", "roi"),
    [
        ("Femur_L", "Hüftkopf re"), ("Femur_R", "Femur li"), ("Femur_L", "FEMUR_RT"), ("Femur_L", "Femurs"),
        ("Femur_L", "Tête fémorale D"), ("PTV56", "BODY"), ("PTV56", "PTV50"), ("PTV56", "CTV56"),
        ("PTV56", "zPTV56_opt"), ("PTV56", "PTV56-PTV70"), ("Bladder", "Gallbladder"), ("Bladder", "Gallenblase"),
        ("Bladder", "Blasenwand"), ("Prostate", "Prostatabett"), ("Prostate", "Prostate+SV"), ("Rectum", "Sacrum"),
        ("Rectum", "Rectum_Wall"), ("Rectum", "PTV_Rectum"), ("Bladder", "Bladder_L"), ("Bowel", "Body"),
        ("Bowel", "Elbow"), ("Femur_L", "Humerus_L"),
    ],
)  # fmt: skip
def test_nothing_is_proposed_below_the_floor_across_sides_or_for_another_organ(protocol, absent, roi):
    assert hints(protocol, [absent], [roi]) == {}


@pytest.mark.parametrize(
    ("absent", "clue"),
    [
        ("Femur_L", Clue("Femur_M", side="R")),
        ("Femur_L", Clue("Femur", side="both")),
        ("Femur_L", Clue("Femur", side="R")),
        ("Femur_L", Clue("Femur li", side="R")),
        ("Rectum", Clue("Rectm", kind="PTV")),
        ("Rectum", Clue("Rectm", kind="SUPPORT")),
        ("PTV56", Clue("PTV 5600", kind="EXTERNAL")),
        ("PTV56", Clue("PTV 5600", doses_gy=(50.0,))),
    ],
)
def test_what_dicom_says_against_a_name_outweighs_it(protocol, absent, clue):
    assert hints(protocol, [absent], [clue.name])
    assert hints(protocol, [absent], [clue]) == {}


@pytest.mark.parametrize(("own", "other"), [("Femur_L", "Femur_R"), ("Femur_R", "Femur_L")])
def test_every_word_for_a_side_is_known_with_every_organ_and_never_crosses(protocol, own, other):
    made = load_nomenclature().words
    words = [*made.left, *made.left_at_ends] if own == "Femur_L" else [*made.right, *made.right_at_ends]
    organs = ["Hüftkopf", "Femur", "Tête fémorale", "Cabeza femoral", "Heupkop", "Caput femoris"]
    for organ in organs:
        for word in [*words, *("esquerdo" if own == "Femur_L" else "direito",)]:
            for name in (f"{organ} {word}", f"{organ}_{word.capitalize()}", f"{word.upper()} {organ}"):
                assert hints(protocol, [own], [name]) == {own: name}
                assert hints(protocol, [other], [name]) == {}
    glued = ("femurlinks", "FEMURG", "femurizq", "femurl") if own == "Femur_L" else ("femurrechts", "FEMURD", "femurr")
    for name in glued:
        assert hints(protocol, [own], [name]) == {own: name}
        assert hints(protocol, [other], [name]) == {}


@pytest.mark.parametrize("free", [["Femur 2", "Hüftkopf li"], ["Hüftkopf li", "Femur 2"]])
def test_an_roi_that_shows_no_side_comes_after_one_that_does(protocol, free):
    assert hints(protocol, ["Femur_L"], free) == {"Femur_L": "Hüftkopf li"}
    assert hints(protocol, ["Femur_L"], ["Femur 2"]) == {"Femur_L": "Femur 2"}


def test_an_roi_is_proposed_for_one_structure_only_and_the_sum_decides(protocol):
    # Femur_L alone could be either; the other fits one of them only.
    assert hints(protocol, ["Femur_L", "Femur_R"], ["Femur_M", "Femur li"]) == {
        "Femur_L": "Femur li",
        "Femur_R": "Femur_M",
    }
    assert len(hints(protocol, ["Femur_L", "Femur_R"], ["Femur_M"])) == 1


def test_the_plan_knows_an_absent_target_whatever_it_is_called(protocol):
    free = [Clue("PTV_5600 alt", kind="PTV"), Clue("Lymphabfluss", kind="CTV", doses_gy=(56.0,))]
    assert hints(protocol, ["PTV56"], list(free)) == {"PTV56": "Lymphabfluss"}


def test_the_only_ptv_left_is_proposed_and_one_of_two_is_not(protocol):
    assert hints(protocol, ["PTV56"], ["PTV Becken", "Penis"]) == {"PTV56": "PTV Becken"}
    assert hints(protocol, ["PTV56"], ["PTV Becken", "PTV Boost"]) == {}
    assert hints(protocol, ["PTV56"], ["PTV"]) == {"PTV56": "PTV"}
    assert hints(protocol, ["PTV70", "PTV56"], ["PTV"]) == {}
    assert hints(protocol, ["PTV56"], [Clue("Becken LK", kind="PTV")]) == {"PTV56": "Becken LK"}


def test_a_message_without_anything_alike_lists_what_there_is(protocol):
    names = ["PTV70", "PTV56", "Prostate", "Rectum", "Femur_L", "Femur_R", "Penis", "Sacrum"]
    with pytest.raises(BadCase, match=r'no ROI matches Bladder .*; unclaimed ROIs are "Penis", "Sacrum"\. Rename'):
        match_names(names, (), protocol, "case_1")


ORGANS = ["Prostate", "Rectum", "Bladder", "Femur_L", "Femur_R"]


@pytest.mark.parametrize(
    ("free", "doses"),
    [
        ([], [70.0]), ([], []), ([], [70.0, 70.0]), ([], [60.0]), (["zPTV70_opt", "PTV70_eval"], [70.0]),
        (["CTV70", "Ring_PTV"], [70.0]),
    ],
)  # fmt: skip
def test_one_dose_and_no_ptv_left_is_outside_the_protocol(protocol, free, doses):
    clues = Clues({}, [TargetDose(dose, None, "") for dose in doses])
    with pytest.raises(SkippedCase, match="not a simultaneous integrated boost: no ROI matches PTV56"):
        match_names([*ORGANS, "PTV70", *free], (), protocol, "case_1", lambda _: clues)


@pytest.mark.parametrize(
    ("free", "doses", "sign"),
    [
        (["PTV2"], [70.0], 'unclaimed target is "PTV2"'),
        (["PTV LN li", "PTV LN re"], [], 'unclaimed targets are "PTV LN li", "PTV LN re"'),
        (["zPTV56_opt"], [70.0], 'unclaimed target is "zPTV56_opt"'),
        (["CTV 56"], [70.0], 'unclaimed target is "CTV 56"'),
        ([], [70.0, 56.0], "the plan prescribes 56 Gy besides"),
        ([], [70.0, 50.4], "the plan prescribes 50.4 Gy besides"),
        ([], [56.0], "the plan prescribes 56 Gy besides"),
        ([], [7000.0, 5600.0], "the plan prescribes 5600 and 7000 Gy besides"),
    ],
)
def test_a_second_dose_or_an_unclaimed_ptv_makes_a_skip_a_failure(protocol, free, doses, sign):
    clues = Clues({}, [TargetDose(dose, None, "") for dose in doses])
    with pytest.raises(BadCase, match=f"It is not skipped as .*{sign}") as error:
        match_names([*ORGANS, "PTV70", *free], (), protocol, "case_1", lambda _: clues)
    assert not isinstance(error.value, SkippedCase)


def test_an_organ_of_skip_when_under_another_name_is_lost_and_not_outside_the_protocol(protocol):
    rule = {"any_absent": ["Bladder"], "reason": "cystectomy"}
    changed = Protocol.model_validate({**protocol.model_dump(), "skip_when": rule})
    names = ["PTV70", "PTV56", "Prostate", "Rectum", "Femur_L", "Femur_R"]
    with pytest.raises(SkippedCase, match="cystectomy"):
        match_names(names, (), changed, "case_1")
    with pytest.raises(BadCase, match=r'nearest is "Blase".*not skipped as "cystectomy": "Blase" may be it') as error:
        match_names([*names, "Blase"], (), changed, "case_1")
    assert not isinstance(error.value, SkippedCase)


def test_each_organs_synonyms_mean_that_organ_alone():
    for name, organ in load_organs().items():
        for phrase in (name, *organ.en, *organ.de, *organ.fr, *organ.es, *organ.nl):
            assert read_name(phrase).organ == name, phrase
            assert not read_name(phrase).is_help, phrase


@pytest.mark.parametrize(
    ("name", "standard"),
    [
        ("Hüftkopf re", "Femur_Head_R"), ("Hueftkopf li", "Femur_Head_L"), ("Poumon gauche", "Lung_L"),
        ("LPAROTID", "Parotid_L"), ("Nieren", "Kidneys"), ("Parotis bds", "Parotids"), ("PTV 50,4 Gy", "PTV_5040"),
        ("PTVn_5600", "PTV_5600"), ("Femur_L", "Femur_L"), ("Myelon", "SpinalCord"), ("zPTV70_opt", ""),
        ("L5", ""), ("膀胱", ""), ("", ""), ("___", ""),
    ],
)  # fmt: skip
def test_standard_names_are_given_as_advice(name, standard):
    assert standard_name(name) == standard

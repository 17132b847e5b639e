"""Names, codes, types and colours of structures: known answers, and codes that DICOM knows."""

from __future__ import annotations

import csv
from importlib.resources import files

import pytest
from pydicom.sr._concepts_dict import concepts

from doseledger.core.cleaning import Cleaning, clean
from doseledger.dicom.privacy.attributes import OWN_TEXT
from doseledger.dicom.structure_names import (
    ANATOMY,
    MOST_CHARACTERS,
    OUTLINE,
    SIDE_CODES,
    SOME_PART,
    TARGET_CODES,
    TARGETS,
    Code,
    describe,
)

# SNOMED CT has the bowel as a whole, DICOM's lists only its parts.
OFF_THE_LISTS = {"113276009"}


def rows() -> list[dict[str, str]]:
    with (files("doseledger.dicom") / "tg263.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def meanings(code: Code) -> set[str]:
    return {meaning for entries in concepts[code.scheme].values() for value, (meaning, _) in entries.items()
            if value == code.value}  # fmt: skip


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["name"])
def test_every_code_of_the_table_is_one_of_dicoms_with_its_meaning(row: dict[str, str]) -> None:
    if row["code"] and row["code"] not in OFF_THE_LISTS:
        assert row["meaning"] in meanings(Code(row["code"], "SCT", row["meaning"]))


@pytest.mark.parametrize("code", [ANATOMY, TARGETS, OUTLINE, *SIDE_CODES.values(), *TARGET_CODES.values()])
def test_every_code_beside_the_table_is_one_of_dicoms_with_its_meaning(code: Code) -> None:
    assert code.meaning in meanings(code)


def test_names_of_the_table_are_short_once_each_and_their_colours_bytes() -> None:
    names = [f"{row['name']}_L" if row["paired"] else row["name"] for row in rows()]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= MOST_CHARACTERS
    assert all(0 <= int(part) <= 255 for row in rows() for part in row["colour"].split())
    assert all(len(row["colour"].split()) == 3 for row in rows())


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("Rectum", "Rectum"),
        ("Rektum", "Rectum"),
        ("Rectosigmoid", "Rectosigmoid"),
        ("LeftParotid", "Parotid_L"),
        ("Lt Lung", "Lung_L"),
        ("FemoralHead_R", "Femur_Head_R"),
        ("Mandible", "Bone_Mandible"),
        ("Brainstem", "Brainstem"),
        ("Lung", "Lung"),
        ("BODY", "External"),
        ("zRing", "zRing"),
    ],
)
def test_an_organ_gets_its_name_of_tg263_where_it_is_known(name: str, wanted: str) -> None:
    assert describe(name).name == wanted
    assert describe(wanted).name == wanted


@pytest.mark.parametrize(
    ("name", "gy", "wanted", "kind", "is_standard"),
    [
        ("PTV70", 70.0, "PTV_7000", "PTV", True),
        ("PTV 50.4Gy", 50.4, "PTV_5040", "PTV", True),
        ("PTV70", 68.0, "PTV70", "PTV", False),
        ("PTV70", None, "PTV70", "PTV", False),
        ("CTVp", None, "CTVp", "CTV", True),
        ("GTV1", None, "GTV1", "GTV", True),
        ("ITV_lung", None, "ITV_lung", "CTV", True),
        ("tumor", 60.0, "tumor", "PTV", False),
    ],
)
def test_a_target_is_named_by_its_prescribed_dose_alone(
    name: str, gy: float | None, wanted: str, kind: str, is_standard: bool
) -> None:
    found = describe(name, gy)
    assert (found.name, found.interpreted_type, found.is_standard) == (wanted, kind, is_standard)
    assert found.category == TARGETS


def test_sides_are_told_and_never_guessed() -> None:
    assert (describe("Femur_L").side, describe("Femur_R").side) == (SIDE_CODES["L"], SIDE_CODES["R"])
    assert describe("Femur").side is None
    assert not describe("Femur").is_standard
    assert describe("Femur").kind == describe("Femur_L").kind
    # The name begins or ends like a side, but is another word.
    assert describe("Larynx").name == "Larynx"
    assert describe("Liver").side is None


def test_an_unknown_structure_has_a_code_that_claims_nothing_and_a_colour_of_its_own() -> None:
    assert describe("zRing").kind == SOME_PART
    assert describe("zRing").colour == describe("zRing").colour != describe("zHot").colour


@pytest.mark.parametrize("by", ["as in the case", "predicted"])
@pytest.mark.parametrize("how", [Cleaning(), Cleaning(True), Cleaning(fill_holes=True), Cleaning(True, True)])
def test_what_our_objects_say_of_cleaning_is_known_to_name_nobody(by: str, how: Cleaning) -> None:
    import numpy as np

    said = clean(np.ones((2, 2, 2), dtype=np.bool_), how)[1] or "not cleaned"
    assert OWN_TEXT.fullmatch(f"{by}; {said}")
    assert not OWN_TEXT.fullmatch(f"{by}; {said}, of Doe^Jane")
    assert not OWN_TEXT.fullmatch(f"Doe {by}; {said}")

"""What names of structures say, and what is proposed for absent ones, written out in `known_names.txt`.

It is written anew where it is deleted: read what changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.known import assert_known

from doseledger.core.errors import BadInput
from doseledger.core.project.protocol import Protocol, load_protocol
from doseledger.core.schema import load_block
from doseledger.ingest.names import nomenclature
from doseledger.ingest.names.hints import Clue, find_hints
from doseledger.ingest.names.nomenclature import Nomenclature, plain, read_name, standard_name

KNOWN = Path(__file__).with_name("known_names.txt")
REPOSITORY = Path(__file__).resolve().parents[3]
NAMES = (
    *("Rectum", "rectum_new", "Enddarm", "Rektum", "Recto", "Rectumwand", "Rectum_wall", "_Rectum", " _Rectum", ""),
    *("Femur_L", "FEMUR_RT", "Femurs", "femurlt", "lfemur", "LPAROTID", "Parotiden", "Parotis re", "Hüftkopf li"),
    *("Hueftkopf rechts", "Tête fémorale G", "Tete femorale droite", "Cabeza femoral izq.", "Heupkop links", "L Femur"),
    *("Femur L R", "femoral head left and right", "both femurs", "Lungs", "Lung_L-GTV", "Lunge ges", "Niere li", "L5"),
    *("Vertebra L5", "Left L5", "L 5", "Herz", "Coeur", "Chest wall", "Chestwall_L", "Spinal Cord PRV 05", "PRV_Cord"),
    *("Rückenmark", "Myelon +5mm", "Bladder minus PTV", "Blase-PTV", "Bladder and Rectum", "Gallenblase", "Ring 2cm"),
    "PTV",
    *("PTV70", "PTV 70Gy", "PTV_7000", "ptv56.5", "PTV 56,5", "PTVn_5600", "PTV1", "PTV 20", "PTV 19.9", "PTV90"),
    *("PTV 90.1", "PTV 9001", "PTV 2000", "PTV70-Rectum", "PTV!Rectum", "PTV-Prostate", "PTV−PTV70", "PTV70 PTV56"),
    "zPTV70_opt",
    *("PTV56_ring", "GTV p", "iCTV 50", "CTV50 links", "ITV", "xPTVx", "PTV_54_60", "Dummy PTV", "xxxxxPTV"),
    "BODY",
    *("External", "Körper", "Couch", "Auge re", "oeil gauche", "Œil droit", "Straße", "Corazón", "L", "R 2", "s"),
)  # fmt: skip


def clue(name: str, kind: str = "", side: str = "", *doses_gy: float) -> Clue:
    return Clue(name, kind, side, doses_gy)  # type: ignore[arg-type]


# Absent structures, and the ROIs that nobody claims.
SETS: dict[str, tuple[tuple[str, ...], tuple[Clue, ...]]] = {
    "nothing absent": ((), (clue("Enddarm"),)),
    "nothing free": (("Rectum",), ()),
    "another language, and one that is spelt alike": (("Rectum", "Bladder"), (clue("Enddarm"), clue("Bladdr"))),
    "spelt less alike than is enough": (("Rectum", "Bladder"), (clue("Sacrum"), clue("Blas"))),
    "the organ itself before one of another language": (("Rectum",), (clue("Enddarm"), clue("Rectum 2"))),
    "more than the organ's name": (("Rectum",), (clue("Enddarm neu kontrolliert"),)),
    "what is near": (("Femur_L", "Femur_R"), (clue("Hüftkopf li"), clue("Hüftkopf re"), clue("Femurhals links"))),
    "sides by their place": (
        ("Femur_L", "Femur_R"), (clue("Hüftkopf 1", side="R"), clue("Hüftkopf 2", side="L"), clue("Hüftkopf")),
    ),
    "a side that place and name say otherwise": (("Femur_L",), (clue("Femur links", side="R"),)),
    "a part on both sides": (("Femur_L",), (clue("Femur x", side="both"),)),
    "half of what has no side": (("Rectum", "Bladder"), (clue("Rectum_L"), clue("Blase", side="L"))),
    "no structure of a patient": (("Rectum",), (clue("Enddarm", "SUPPORT"), clue("Rectum 3", "BOLUS"))),
    "a target is no organ": (
        ("Rectum", "Prostate"), (clue("PTV Rectum"), clue("Vorsteher", "CTV"), clue("CTV Prostate")),
    ),
    "a target by the plan": (("PTV56",), (clue("Lymph", "", "", 56.05), clue("PTV_56"))),
    "a target of which the plan says another dose": (("PTV56",), (clue("PTV56 neu", "PTV", "", 56.2),)),
    "a target by the dose in its name": (("PTV56", "PTV70"), (clue("PTV_5600 Becken"), clue("ptv 70 boost"))),
    "a name of two doses": (("PTV56",), (clue("PTV 56/70"), clue("PTV56x70"))),
    "the last PTV": (("PTV56",), (clue("PTV Becken"),)),
    "the last PTV of two targets": (("PTV56", "PTV70"), (clue("PTV Becken"),)),
    "two last PTVs": (("PTV56",), (clue("PTV Becken"), clue("PTV Rest"))),
    "a target by its type": (("PTV56",), (clue("Becken", "PTV"), clue("Rest", "ORGAN"), clue("GTV"))),
    "a planning help": (("PTV56",), (clue("zPTV56_opt"), clue("PTV56-PTV70"))),
    "one ROI for one structure": (
        ("Femur_L", "Femur_R", "Bowel"), (clue("Femur"), clue("Dünndarm"), clue("Bowel bag")),
    ),
}  # fmt: skip


def written_out() -> Iterator[str]:
    for name in NAMES:
        parts = read_name(name)
        said = [parts.organ, "whole" if parts.whole else "", parts.side, parts.target, *map(str, parts.doses_gy)]
        said += ["help" if parts.is_help else "", f"({parts.core})", "-> " + standard_name(name)]
        yield f"{name!r}: {' '.join(filter(None, said))}"
    protocol = load_protocol(REPOSITORY / "validation/cohorts/prostate/protocol.yaml")
    for title, (absent, free) in SETS.items():
        found = find_hints([protocol.structure(name) for name in absent], free, protocol)
        yield f"{title}: " + "; ".join(f"{n} {h.roi!r} {h.why!r} {h.likeness:.4f}" for n, h in found.items())


def test_names_and_hints_are_the_known_ones() -> None:
    assert_known(KNOWN, "\n".join(written_out()), is_passing=False)


@pytest.mark.parametrize(
    ("name", "side", "dose_gy", "standard"),
    [
        ("Parotis", "", None, "Parotid"), ("Parotis", "L", None, "Parotid_L"), ("Parotis", "both", None, "Parotids"),
        ("Parotis re", "L", None, "Parotid_R"), ("Rectum", "L", None, "Rectum"), ("PTV", "", 56.0, "PTV_5600"),
        ("PTV 70", "", 56.0, "PTV_7000"), ("PTV 50 60", "", 56.0, "PTV"), ("Unheard of", "R", 20.0, ""),
        ("CTV", "", None, "CTV"), ("Ring", "", None, ""),
    ],
)  # fmt: skip
def test_a_standard_name_takes_side_and_dose_from_elsewhere_where_the_name_says_none(
    name: str, side: nomenclature.Side, dose_gy: float | None, standard: str
) -> None:
    assert standard_name(name, side, dose_gy) == standard


def test_accents_ligatures_and_german_letters_become_plain() -> None:
    words = "Straße Œsophage oesophage æther Øye Tête Hüfte Hueft AEther NUEVO Cœur"
    assert plain(words) == "Strasse Osophage osophage ather Øye Tete Hufte Huft Ather NUVO Cour"


def test_a_list_of_names_that_contradicts_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {key: [] for key in ("left", "right", "left_at_ends", "right_at_ends", "both", "planning", "planning_ends")}
    with pytest.raises(BadInput, match="near names no organ of the file: Heart: Lung"):
        load_block(Nomenclature, {"words": words, "organs": {"Heart": {"en": ["heart"], "near": ["Lung"]}}}, "a.yaml")
    organs = {"Heart": {"en": ["pump"]}, "Bladder": {"en": ["Pump"]}}
    twice = load_block(Nomenclature, {"words": words, "organs": organs}, "a.yaml")
    nomenclature._phrases.cache_clear()
    monkeypatch.setattr(nomenclature, "load_nomenclature", lambda: twice)
    with pytest.raises(BadInput, match="'Pump' belongs to both Heart and Bladder"):
        nomenclature._phrases()
    nomenclature._phrases.cache_clear()


def test_prescribed_doses_are_compared_to_a_tenth_of_a_gray(repository: Path) -> None:
    protocol: Protocol = load_protocol(repository / "validation/cohorts/prostate/protocol.yaml")
    for dose_gy, is_found in ((56.09, True), (55.91, True), (56.11, False), (55.89, False)):
        found = find_hints([protocol.structure("PTV56")], [clue("Becken", "", "", dose_gy)], protocol)
        assert bool(found) is is_found, dose_gy

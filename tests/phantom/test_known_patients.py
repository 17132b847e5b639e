"""Patients of three seeds as they were when a person last looked at them: sizes, places and HU, written out.

After a change that is meant, look at the patients (`doseledger phantom`), then renew the list:
`python -c "from tests.phantom.test_known_patients import renew; renew()"`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from doseledger.phantom.cohort import COLLIMATOR_DEG, FALLOFF_MM, FIRMER, JAW_MARGIN_MM, N_FRACTIONS, WEIGHT_SPREAD
from doseledger.phantom.cohort import DIRT as COHORT_DIRT
from doseledger.phantom.patient import Dirt, draw_patient

KNOWN = Path(__file__).parent / "known_patients.json"
DIRT = {
    "plain": Dirt(),
    "prone and rolled": Dirt(position="HFP", roll_deg=6.0, extra=True),
    "bowel near": Dirt(bowel_gap_mm=3.0, absent=("Femur_L",), odd_dose_grid=True),
}


def describe(name: str) -> dict[str, Any]:
    """Return a patient in few numbers: per structure the volume, centre and spread of HU; the grids; the whole CT."""
    patient = draw_patient(np.random.default_rng(31 + [*DIRT].index(name)), 96, 6.0, DIRT[name])
    found: dict[str, Any] = {}
    for structure, surface in {**patient.surfaces, "air": np.where(patient.body, 1.0, -1.0)}.items():
        inside = surface < 0
        hu = patient.ct_hu[inside].astype(float)
        found[structure] = {
            "cc": inside.sum() * patient.grid.voxel_volume_cc,
            "centre_mm": patient.grid.index_to_mm(np.argwhere(inside)).mean(axis=0).tolist(),
            "spread_mm": patient.grid.index_to_mm(np.argwhere(inside)).std(axis=0).tolist(),
            "hu": [hu.mean(), hu.std(), *np.percentile(hu, [2, 25, 75, 98])],
        }
    for key, grid in {"image": patient.grid, "dose": patient.dose_grid}.items():
        found[key] = {"shape": list(grid.shape_zyx), "mm": [*grid.spacing_mm, *grid.origin_mm]}
    found["profiles"] = {name: profiles(np.clip(surface, -12, 12)) for name, surface in patient.surfaces.items()}
    found["profiles"]["ct"] = profiles(patient.ct_hu)
    # Far from a structure nothing is computed: 99 mm stands there.
    found["computed"] = {name: int((surface != 99).sum()) for name, surface in patient.surfaces.items()}
    found["bones cc"] = (patient.ct_hu > 200).sum() * patient.grid.voxel_volume_cc
    found["traits"] = {key: float(value) for key, value in patient.anatomy.traits.items()}
    return found


def profiles(volume: NDArray[np.number]) -> list[float]:
    """Return the means of ten parts of a volume along each axis: a change of any place moves three of them."""
    parts = [part for axis in range(3) for part in np.array_split(volume, 10, axis)]
    return [float(part.mean(dtype=np.float64)) for part in parts]


def slack(key: str, value: float) -> float:
    """Return by how much a number may differ: another machine rounds one voxel of a surface to its other side."""
    if "profiles" in key:
        return 0.02 if "/ct/" in key else 2e-4
    return 0.1 + 2e-3 * abs(value)


def renew() -> None:
    known = {name: {key: round(value, 6) for key, value in flatten(describe(name)).items()} for name in DIRT}
    KNOWN.write_text(json.dumps(known, indent=0, ensure_ascii=False) + "\n")


def flatten(value: Any, name: str = "") -> dict[str, float]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {name: float(value)}
    return {key: number for part, one in items for key, number in flatten(one, f"{name}/{part}").items()}


@pytest.mark.parametrize("name", DIRT)
def test_a_patient_of_a_seed_is_who_it_was(name: str) -> None:
    known, found = json.loads(KNOWN.read_text())[name], flatten(describe(name))
    assert found.keys() == known.keys()
    off = {key: (found[key], value) for key, value in known.items() if abs(found[key] - value) > slack(key, value)}
    assert off == {}


def test_the_cohorts_dirt_is_that_of_known_cases() -> None:
    assert {
        4: Dirt(names={"PTV70": "PTV_70", "PTV56": "PTV_56", "Rectum": "Rect"}, extra=True),
        7: Dirt(absent=("Bowel",)),
        9: Dirt(odd_dose_grid=True),
        11: Dirt(names={"Femur_L": "FemoralHead_L", "Femur_R": "FemoralHead_R", "Bowel": "SmallBowel"}),
        13: Dirt(absent=("PTV56",)),
        16: Dirt(names={"PTV70": "PTVp_7000", "PTV56": "PTVn_5600", "Prostate": "CTVp", "Bladder": "Blad"}),
        17: Dirt(position="FFP"),
        20: Dirt(names={"Femur_L": "Femur_Head_L", "Femur_R": "Femur_Head_R", "Rectum": "Rektum"}, extra=True),
        21: Dirt(roll_deg=5.0),
    } == COHORT_DIRT
    assert (N_FRACTIONS, WEIGHT_SPREAD, FIRMER) == (28, 0.25, 2.0)
    assert (COLLIMATOR_DEG, JAW_MARGIN_MM, FALLOFF_MM) == ((8.0, 38.0), (6.0, 11.0), (11.0, 17.0))

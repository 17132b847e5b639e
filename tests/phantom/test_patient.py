"""Phantom patients are possible ones: organs where they belong, of the size they have, and no two alike."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from doseledger.core.grid import Grid
from doseledger.phantom.anatomy import draw_anatomy
from doseledger.phantom.patient import Dirt, SyntheticPatient, draw_patient
from doseledger.phantom.shapes import Space, blend, capsule, ellipsoid, smooth_path
from doseledger.phantom.traits import load_ranges

# Coarse, so that a patient takes a second.
PIXELS = 112
SEEDS = (11, 12, 13, 14)


def draw(seed: int, dirt: Dirt | None = None) -> SyntheticPatient:
    return draw_patient(np.random.default_rng(seed), PIXELS, 6.0, dirt or Dirt())


@pytest.fixture(scope="module")
def patients() -> list[SyntheticPatient]:
    return [draw(seed) for seed in SEEDS]


def masks_of(patient: SyntheticPatient) -> dict[str, NDArray[np.bool_]]:
    return {name: surface < 0 for name, surface in patient.surfaces.items()}


def centre(mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    return grid.index_to_mm(np.argwhere(mask)).mean(axis=0)


def test_every_range_says_its_source_and_every_draw_keeps_to_it() -> None:
    ranges = load_ranges()
    assert all(len(trait.source) > 6 for trait in ranges.values())
    for seed in range(20):
        for name, value in draw_anatomy(np.random.default_rng(seed)).traits.items():
            assert ranges[name].low <= value <= ranges[name].high


def test_volumes_are_those_of_men_on_planning_ct(patients: list[SyntheticPatient]) -> None:
    wanted = {"Prostate": (20, 100), "Rectum": (35, 160), "Bladder": (180, 600), "Bowel": (30, 600), "PTV70": (40, 200),
              "PTV56": (150, 800), "Femur_L": (80, 190), "Femur_R": (80, 190), "BODY": (12000, 32000)}  # fmt: skip
    for patient in patients:
        for name, mask in masks_of(patient).items():
            volume = mask.sum() * patient.grid.voxel_volume_cc
            assert wanted[name][0] <= volume <= wanted[name][1], (name, volume)


def test_organs_lie_where_they_belong(patients: list[SyntheticPatient]) -> None:
    for patient in patients:
        at = {name: centre(mask, patient.grid) for name, mask in masks_of(patient).items()}
        prostate = at["Prostate"]
        # z to the head, y to the back, x to the left.
        assert at["Femur_L"][2] - prostate[2] > 60
        assert at["Femur_R"][2] - prostate[2] < -60
        assert at["Rectum"][1] > prostate[1] + 15
        assert at["Bladder"][0] > prostate[0] + 15
        assert at["Bowel"][0] > prostate[0] + 50


def test_everything_contoured_lies_in_the_body_and_organs_do_not_overlap(patients: list[SyntheticPatient]) -> None:
    for patient in patients:
        masks = masks_of(patient)
        for name, mask in masks.items():
            assert not (mask & ~masks["BODY"]).any(), name
        organs = [masks[name] for name in ("Prostate", "Rectum", "Bladder", "Femur_L", "Femur_R", "Bowel")]
        assert np.sum(organs, axis=0).max() == 1


def test_targets_contain_the_prostate_and_ptv56_contains_or_abuts_ptv70(patients: list[SyntheticPatient]) -> None:
    for patient in patients:
        masks = masks_of(patient)
        assert not (masks["Prostate"] & ~masks["PTV70"]).any()
        overlap = (masks["PTV70"] & masks["PTV56"]).sum() / masks["PTV70"].sum()
        assert overlap == (0.0 if patient.anatomy.abutting else 1.0)
        gap = distance_transform_edt(~masks["PTV70"], sampling=patient.grid.spacing_mm)[masks["PTV56"]].min()
        assert gap <= max(patient.grid.spacing_mm)
    # Both kinds are among the seeds.
    assert {patient.anatomy.abutting for patient in patients} == {True, False}


def test_bowel_loops_keep_ten_millimetres_from_ptv56(patients: list[SyntheticPatient]) -> None:
    for patient in patients:
        masks = masks_of(patient)
        distance = distance_transform_edt(~masks["PTV56"], sampling=patient.grid.spacing_mm)
        assert distance[masks["Bowel"]].min() >= 10.0


def test_ct_numbers_are_those_of_tissue(patients: list[SyntheticPatient]) -> None:
    for patient in patients:
        ct, masks = patient.ct_hu, masks_of(patient)
        assert ct.dtype == np.int16
        assert abs(float(np.median(ct[masks["Prostate"]])) - 44) < 12
        assert -5 < float(np.median(ct[masks["Bladder"]])) < 25
        assert float(np.median(ct[masks["Femur_L"]])) > 90
        assert float(np.percentile(ct[masks["Femur_L"]], 95)) > 350
        fat = ct[masks["BODY"] & (ct < -60) & (ct > -140)]
        assert fat.size > 0.15 * masks["BODY"].sum()
        assert np.percentile(ct[:, :3, :3], 50) < -990


def test_no_two_patients_are_alike(patients: list[SyntheticPatient]) -> None:
    volumes = [masks_of(p)["Bladder"].sum() * p.grid.voxel_volume_cc for p in patients]
    assert len({round(v) for v in volumes}) == len(patients)
    assert len({p.grid.origin_mm for p in patients}) == len(patients)


def test_the_same_seed_gives_the_same_patient_to_the_bit() -> None:
    first, again = draw(5), draw(5)
    assert first.grid == again.grid
    np.testing.assert_array_equal(first.ct_hu, again.ct_hu)
    for name, surface in first.surfaces.items():
        np.testing.assert_array_equal(surface, again.surfaces[name])


def couch_side(patient: SyntheticPatient) -> float:
    """Rows of couch foam behind the patient less those in front."""
    foam = (patient.ct_hu > -960) & (patient.ct_hu < -850) & ~masks_of(patient)["BODY"]
    middle = centre(masks_of(patient)["BODY"], patient.grid)[1]
    y = patient.grid.axes_mm()[1]
    return float(foam[:, y > middle].sum() - foam[:, y < middle].sum())


def test_a_prone_patient_lies_on_the_belly() -> None:
    assert couch_side(draw(8)) > 1000
    assert couch_side(draw(8, Dirt(position="FFP"))) < -1000


def test_a_rolled_patient_has_one_hip_lower_than_the_other() -> None:
    def tilt(patient: SyntheticPatient) -> float:
        left, right = (centre(masks_of(patient)[name], patient.grid) for name in ("Femur_L", "Femur_R"))
        return float(np.rad2deg(np.arctan2(left[1] - right[1], left[2] - right[2])))

    assert tilt(draw(9)) == pytest.approx(0.0, abs=0.3)
    assert tilt(draw(9, Dirt(roll_deg=5.0))) == pytest.approx(5.0, abs=0.3)


def test_what_is_not_contoured_is_absent_and_a_stranger_may_be_there() -> None:
    assert "Bowel" not in draw(10, Dirt(absent=("Bowel",))).surfaces
    assert "SeminalVesicles" in draw(10, Dirt(extra=True)).surfaces


def test_an_odd_dose_grid_shares_no_plane_with_the_ct_but_holds_the_targets() -> None:
    patient = draw(10, Dirt(odd_dose_grid=True))
    dose, ct = patient.dose_grid, patient.grid
    steps = ct.mm_to_index(np.column_stack([dose.axes_mm()[0], np.zeros((dose.shape_zyx[0], 2))]))[:, 0]
    assert np.abs(steps - np.round(steps)).max() > 0.1
    targets = np.argwhere(masks_of(patient)["PTV56"])
    index = dose.mm_to_index(ct.index_to_mm(targets))
    assert index.min() >= 0
    assert np.all(index.max(axis=0) <= np.array(dose.shape_zyx) - 1)
    body = dose.mm_to_index(ct.index_to_mm(np.argwhere(masks_of(patient)["BODY"])))
    assert body.min() < -1


def test_shapes_have_the_distances_that_geometry_gives() -> None:
    space = Space.of_points(np.array([[30.0, 0.0, 0.0], [0.0, 0.0, 25.0], [0.0, 0.0, -10.0], [3.0, 0.0, 5.0]]))
    np.testing.assert_allclose(ellipsoid(space, (0, 0, 0), (10, 10, 10))[:2], [20.0, 15.0], atol=1e-4)
    rod = capsule(space, (0.0, 0.0, 0.0), (0.0, 0.0, 10.0), (2.0, 2.0))
    np.testing.assert_allclose(rod, [28.0, 13.0, 8.0, 1.0], atol=1e-4)
    near, far = np.float32([0.0]), np.float32([50.0])
    np.testing.assert_allclose(blend(near, far, 6.0), near)
    assert blend(near, near, 6.0)[0] < 0.0
    path = smooth_path(np.array([[0.0, 0, 0], [10, 0, 0], [20, 5, 0]]), 4)
    assert len(path) == 9
    np.testing.assert_allclose(path[[0, 4, 8]], [[0, 0, 0], [10, 0, 0], [20, 5, 0]], atol=1e-12)


def test_a_space_is_cut_to_a_box_that_holds_the_ball() -> None:
    space = Space.of_grid(Grid((10, 20, 30), (3.0, 2.0, 2.0), (0.0, 0.0, 0.0)), (15.0, 20.0, 30.0), 5.0)
    box, near = space.near((0.0, 0.0, 0.0), 9.0)
    inside = np.sqrt(space.x**2 + space.y**2 + space.z**2) <= 9.0
    kept = np.zeros_like(inside)
    kept[box] = True
    assert not (inside & ~kept).any()
    assert near.x.shape[1:] == kept[box].shape[1:]

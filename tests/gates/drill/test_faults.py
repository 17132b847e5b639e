"""Faults are pure, nothing at size 0, and no more than they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from doseledger.core.case import Case, check_form
from doseledger.core.errors import BadInput
from doseledger.core.project.protocol import Protocol
from doseledger.gates.drill.faults import AFTER, BEFORE, FAULTS, GROUPS, Fault, choose_faults
from doseledger.gates.drill.noted import as_noted
from doseledger.gates.drill.trial import Trial

Make = Callable[[int], Case]
ARRAYS = ("ct_hu", "masks", "sdf_mm", "present", "body", "valid_dose", "dose_gy")
SIZED = [fault for fault in FAULTS if fault.unit]


def fault_of(name: str) -> Fault:
    return choose_faults([name])[0]


def arrays_of(case: Case) -> dict[str, Any]:
    return {name: np.array(getattr(case, name)) for name in ARRAYS}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in ARRAYS)


@pytest.fixture
def draw(protocol: Protocol, healthy: Make) -> Trial:
    return Trial(healthy(1), healthy(2), 1.0, 0, (3, 1), protocol)


def put(name: str, case: Case, size: float, draw: Trial) -> Case:
    faulty = fault_of(name).put(replace(draw, case=case, size=size))
    assert faulty is not None
    return faulty


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_changes_a_copy_and_never_the_case(fault: Fault, healthy: Make, draw: Trial) -> None:
    case = healthy(1)
    before, plan = arrays_of(case), (dict(case.meta), case.grid, dict(case.prescription_gy), case.n_fractions)
    faulty = fault.put(replace(draw, case=case, size=fault.sizes[-1]))
    assert faulty is not None
    check_form(faulty)
    assert same(arrays_of(case), before)
    assert (dict(case.meta), case.grid, dict(case.prescription_gy), case.n_fractions) == plan
    now = (dict(faulty.meta), faulty.grid, dict(faulty.prescription_gy), faulty.n_fractions)
    assert not (now == plan and same(arrays_of(faulty), before))


@pytest.mark.parametrize("fault", SIZED, ids=lambda fault: fault.name)
def test_a_fault_of_no_size_is_no_fault(fault: Fault, healthy: Make, draw: Trial) -> None:
    case = healthy(1)
    faulty = fault.put(replace(draw, case=case, size=0.0))
    assert faulty is not None
    assert same(arrays_of(faulty), arrays_of(case))
    assert (faulty.grid, faulty.prescription_gy, faulty.n_fractions) == (
        case.grid, case.prescription_gy, case.n_fractions,
    )  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_the_same_again(fault: Fault, healthy: Make, draw: Trial) -> None:
    one, other = (fault.put(replace(draw, case=healthy(1), size=fault.sizes[0])) for _ in range(2))
    assert one is not None
    assert other is not None
    assert same(arrays_of(one), arrays_of(other))


def test_every_fault_has_a_name_of_its_own_rising_sizes_and_a_group() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert len({(fault.title, fault.when) for fault in FAULTS}) == len(FAULTS)
    for fault in FAULTS:
        assert list(fault.sizes) == sorted(set(fault.sizes)), fault.name
        assert bool(fault.unit) == (len(fault.sizes) > 1), fault.name
        assert fault.group in GROUPS
        assert fault.when in (BEFORE, AFTER)


def test_known_answers_of_the_dose(healthy: Make, draw: Trial) -> None:
    case = healthy(1)
    dose = np.asarray(case.dose_gy)
    moved = np.asarray(put("dose_moved", case, 1.0, draw).dose_gy)
    np.testing.assert_allclose(moved[1:], dose[:-1], atol=1e-4)
    np.testing.assert_allclose(put("dose_high", case, 5.0, draw).dose_gy, 1.05 * dose, rtol=1e-6)
    np.testing.assert_allclose(put("dose_low", case, 5.0, draw).dose_gy, 0.95 * dose, rtol=1e-6)
    np.testing.assert_allclose(put("dose_fraction", case, 1.0, draw).dose_gy, dose / 28, rtol=1e-6)
    lost = np.asarray(put("dose_slices_lost", case, 2.0, draw).dose_gy)
    changed = np.flatnonzero((lost != dose).any(axis=(1, 2)))
    assert len(changed) == 2
    assert not lost[changed].any()
    assert case.mask("PTV70")[changed].any(axis=(1, 2)).all()
    low = np.asarray(put("dose_low_lost", case, 25.0, draw).dose_gy)
    assert 100.0 * np.mean(low[case.valid_dose] == 0.0) == pytest.approx(25.0, abs=0.1)


def test_known_answers_of_the_image(healthy: Make, draw: Trial) -> None:
    case = healthy(1)
    brighter = put("ct_offset", case, 20.0, draw).ct_hu
    assert np.array_equal(brighter[case.body], case.ct_hu[case.body] + 20)
    assert np.array_equal(brighter[~case.body], case.ct_hu[~case.body])
    scaled = put("ct_scaled", case, 10.0, draw).ct_hu
    np.testing.assert_allclose(scaled, 1.1 * (case.ct_hu + 1000.0) - 1000.0, atol=0.51)
    closed = put("ct_slices_left_out", case, 1.0, draw).ct_hu
    first = int(np.flatnonzero((closed != case.ct_hu).any(axis=(1, 2)))[0])
    assert np.array_equal(closed[first:-1], case.ct_hu[first + 1 :])
    assert np.array_equal(closed[-1], case.ct_hu[-1])
    repeated = put("ct_slices_repeated", case, 2.0, draw).ct_hu
    assert np.array_equal(repeated[first], repeated[first - 1])
    assert np.array_equal(repeated[first + 1], repeated[first - 1])


def test_known_answers_of_structures(healthy: Make, draw: Trial) -> None:
    case = healthy(1)
    index = case.structure_names.index("PTV70")
    moved = put("target_moved", case, 12.0, draw)
    assert np.array_equal(moved.masks[index][2:], case.masks[index][:-2])
    others = np.arange(len(case.structure_names)) != index
    assert np.array_equal(moved.masks[others], case.masks[others])
    counts = [int(put(name, case, 9.0, draw).masks[index].sum()) for name in ("target_shrunk", "target_grown")]
    assert counts[0] < int(case.masks[index].sum()) < counts[1]
    swapped = put("sides_swapped", case, 1.0, draw)
    assert np.array_equal(swapped.mask("Femur_L"), case.mask("Femur_R"))
    assert np.array_equal(swapped.mask("Femur_R"), case.mask("Femur_L"))
    hole = put("valid_dose_holed", case, 1.0, draw)
    lost = int(case.valid_dose.sum() - hole.valid_dose.sum())
    assert lost == round(0.01 * int(case.body.sum()))


def test_all_of_a_case_is_mirrored_and_twice_is_as_before(healthy: Make, draw: Trial) -> None:
    case = healthy(1)
    once = put("case_mirrored", case, 1.0, draw)
    assert np.array_equal(once.mask("Femur_L"), case.mask("Femur_L")[..., ::-1])
    assert same(arrays_of(put("case_mirrored", once, 1.0, draw)), arrays_of(case))


def test_another_patients_dose_and_image_lie_at_the_targets_middle(healthy: Make, draw: Trial) -> None:
    case, other = healthy(1), draw.other
    laid = np.asarray(put("dose_other", case, 1.0, draw).dose_gy)
    middle, there = (np.argwhere(c.mask("PTV70")).mean(axis=0) for c in (case, other))
    hot, hot_there = (np.argwhere(dose > 60.0).mean(axis=0) for dose in (laid, np.asarray(other.dose_gy)))
    np.testing.assert_allclose(hot - middle, hot_there - there, atol=0.3)
    image = put("ct_other", case, 1.0, draw).ct_hu
    assert not np.array_equal(image, case.ct_hu)
    # Between voxels no value is above or below those about it.
    assert laid.min() >= 0.0
    assert laid.max() <= np.asarray(other.dose_gy).max()
    assert image.max() <= other.ct_hu.max()


def test_a_copy_has_the_name_of_the_case_and_the_content_of_the_other(healthy: Make, draw: Trial) -> None:
    copy = put("near_copy", healthy(1), 1.0, draw)
    assert (copy.case_id, copy.meta["source_sha256"]) == ("case_0001", healthy(1).meta["source_sha256"])
    assert np.array_equal(copy.masks, draw.other.masks)
    assert np.corrcoef(copy.ct_hu.ravel(), draw.other.ct_hu.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("name", ["dose_high", "dose_moved", "structures_moved", "organs_exchanged", "sides_swapped"])
def test_before_ingest_the_notes_move_as_the_case_does(name: str, healthy: Make, draw: Trial) -> None:
    case = healthy(1)
    noted = {key: {**found, "D95%": found["D95%"] + 0.2} for key, found in case.meta["parity"].items()}
    case = replace(case, meta={**case.meta, "parity": noted})
    faulty = as_noted(case, put(name, case, 3.0, draw))
    for structure in case.present_names:
        doses = np.asarray(faulty.dose_gy)[faulty.mask(structure)]
        found = faulty.meta["parity"][structure]
        assert found["D95%"] == pytest.approx(float(np.percentile(doses, 5.0)) + 0.2, abs=1e-3)
        assert found["mean"] == pytest.approx(float(doses.mean(dtype=np.float64)), abs=1e-3)
        volume = float(faulty.mask(structure).sum()) * case.grid.voxel_volume_cc
        assert found["volume_cc"] == pytest.approx(volume, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("sides_swapped", ("Femur_L", "Bowel")),
        ("organ_moved", ("Prostate", "Rectum", "Bladder", "Femur_L", "Femur_R", "Bowel")),
    ],
)
def test_a_case_without_such_structures_can_not_have_the_fault(
    name: str, absent: tuple[str, ...], make_case: Callable[..., Case], draw: Trial
) -> None:
    assert fault_of(name).put(replace(draw, case=make_case(absent=absent), size=1.0)) is None


def test_without_another_patient_there_is_none_of_his(healthy: Make, draw: Trial) -> None:
    case = healthy(1)
    for fault in (fault for fault in FAULTS if fault.needs_other):
        assert fault.put(replace(draw, case=case, other=case)) is None


def test_an_unknown_fault_is_told_the_nearest() -> None:
    with pytest.raises(
        BadInput, match=r"no fault is called 'dose_move'; there are dose_moved, .*Did you mean dose_moved\?"
    ):
        choose_faults(["dose_move"])

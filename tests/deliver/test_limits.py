"""Each tolerance of what goes back to the clinic: just inside is written, just outside is refused or told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.core.project.protocol import Goal
from doseledger.deliver import deliverable, masks, nifti, structure_objects, structures
from doseledger.deliver.dose import dose_on_grid
from doseledger.deliver.gap import dose_gap
from doseledger.deliver.masks import MaskSet, check_image, mask_on_image
from doseledger.deliver.nifti import on_image_grid
from doseledger.deliver.robustness import scenarios
from doseledger.deliver.wishes import objective_of
from doseledger.planning.dose.raytrace import DensityMap
from doseledger.planning.machine.linac import load_machine

GRID = Grid((10, 12, 14), (3.0, 2.0, 2.0), (-13.5, -11.0, -13.0))


def masks_of(grid: Grid = GRID, ct_hu: np.ndarray | None = None) -> MaskSet:
    mask = np.zeros(grid.shape_zyx, np.bool_)
    mask[2:8, 3:9, 3:10] = True
    return MaskSet("case_1", grid, {"PTV": mask}, ct_hu=ct_hu)


@pytest.mark.parametrize(("off_hu", "is_same"), [(0, True), (1, True), (2, False), (3, False), (40, False)])
def test_an_image_is_the_cases_up_to_one_hu(off_hu: int, is_same: bool) -> None:
    ct_hu = np.arange(np.prod(GRID.shape_zyx)).reshape(GRID.shape_zyx).astype(np.int16)
    other = ct_hu.copy()
    other[4, 5, 6] += off_hu
    with nullcontext() if is_same else pytest.raises(BadCase, match=f"values differ by up to {off_hu} inside"):
        check_image(masks_of(ct_hu=ct_hu), other, GRID)


@pytest.mark.parametrize(("off_mm", "is_inside"), [(0.0, True), (2.0, True), (2.009, True), (2.02, False)])
def test_masks_may_reach_half_a_voxel_of_each_grid_beyond_the_image(off_mm: float, is_inside: bool) -> None:
    moved = Grid(GRID.shape_zyx, GRID.spacing_mm, (-13.5, -11.0, -13.0 + off_mm))
    with nullcontext() if is_inside else pytest.raises(BadCase, match="the masks lie from"):
        check_image(masks_of(), np.zeros(GRID.shape_zyx, np.int16), moved)


@pytest.mark.parametrize(("off_mm", "is_copied"), [(0.0, True), (0.0099, True), (0.0105, False), (0.9, False)])
def test_a_mask_within_the_hundredth_of_a_mm_of_the_image_is_copied(
    off_mm: float, is_copied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = masks_of().masks["PTV"]
    asked: list[Grid] = []
    plain = masks.resample_linear
    monkeypatch.setattr(masks, "resample_linear", lambda *args: asked.append(args[1]) or plain(*args))
    found = mask_on_image(mask, GRID, Grid((12, 14, 16), GRID.spacing_mm, (-16.5, -13.0, -15.0 + off_mm)))
    assert (not asked) is is_copied
    assert found.sum() == mask.sum()


def test_a_surface_is_interpolated_within_two_voxels_of_the_coarser_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[float] = []
    plain = masks.signed_distance
    monkeypatch.setattr(
        masks, "signed_distance", lambda mask, grid, reach_mm: reached.append(reach_mm) or plain(mask, grid, reach_mm)
    )
    mask_on_image(masks_of().masks["PTV"], GRID, Grid((12, 14, 16), (2.0, 2.5, 2.5), (-16.5, -13.0, -15.0)))
    assert reached == [6.0]


@pytest.mark.parametrize(("percent", "is_told"), [(0.99, False), (-0.99, False), (1.01, True), (-1.01, True)])
def test_a_volume_that_the_images_voxels_change_by_one_percent_is_told(percent: float, is_told: bool) -> None:
    mask = masks_of().masks["PTV"]
    ours = float(mask.sum()) * GRID.voxel_volume_cc / (1.0 + percent / 100.0)
    described = SimpleNamespace(name="PTV", is_standard=True)
    named: Any = [SimpleNamespace(name="PTV", mask=mask, volume_cc=ours, described=described, cleaned={})]
    told = structures._summary(masks_of(ct_hu=np.zeros(GRID.shape_zyx, np.int16)), named, {}, GRID)["warnings"]
    assert told == ([f"PTV: the image's voxels change its volume by {percent:+.1f} %"] if is_told else [])


def goal(statistic: str, operator: str, limit: float, unit: str) -> Goal:
    return Goal.model_validate({"structure": "Rectum", "statistic": statistic, "operator": operator, "limit": limit,
                                "unit": unit, "source": "a test"})  # fmt: skip


def test_an_organ_is_asked_for_three_percent_less_and_a_target_for_what_was_wished() -> None:
    assert objective_of(goal("mean", "<=", 40.0, "Gy"), 50.0, is_target=False).dose_gy == pytest.approx(38.8)
    assert objective_of(goal("max", "<=", 75.0, "Gy"), 50.0, is_target=True).dose_gy == 75.0
    assert objective_of(goal("D95%", ">=", 70.0, "Gy"), 50.0, is_target=True).dose_gy == 70.0


@pytest.mark.parametrize(("percent", "asked"), [(98.0, 98.0), (99.0, 99.0), (99.5, 99.0), (100.0, 99.0)])
def test_no_more_than_99_percent_of_a_volume_is_asked_for(percent: float, asked: float) -> None:
    assert objective_of(goal("V40Gy", ">=", percent, "%"), 50.0, is_target=True).volume_percent == asked


@pytest.mark.parametrize(("off_percent", "is_written"), [(0.0, True), (0.99, True), (-0.99, True), (1.01, False)])
def test_contours_may_hold_one_percent_more_or_less_than_their_mask(
    off_percent: float, is_written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = masks_of().masks["PTV"]
    volume = float(mask.sum()) * GRID.voxel_volume_cc * (1 + off_percent / 100.0)
    right = float(mask.sum()) * GRID.voxel_volume_cc
    monkeypatch.setattr(structure_objects, "_structure_set", lambda *_: None)
    monkeypatch.setattr(structure_objects, "read_back", lambda *_: {"PTV": volume, "Rectum": right})
    named: list[Any] = [
        SimpleNamespace(name=name, mask=mask, described=SimpleNamespace(name=name)) for name in ("PTV", "Rectum")
    ]
    image: Any = SimpleNamespace(grid=GRID)
    study: Any = None
    reasons: dict[str, str] = {}
    kept, _, _ = structure_objects.contoured(named, study, image, masks_of(), reasons)
    assert [each.name for each in kept] == (["PTV", "Rectum"] if is_written else ["Rectum"])
    assert list(reasons) == ([] if is_written else ["PTV"])


BEAMS: Any = SimpleNamespace(gantry_deg=[0.0, 90.0])


@pytest.mark.parametrize(("apart_gy", "is_given"), [(4.54, True), (4.56, False), (float("nan"), False)])
def test_a_dose_lies_at_most_six_and_a_half_percent_from_what_beams_give(
    apart_gy: float, is_given: bool, make_case: Callable[..., Case]
) -> None:
    # 6.5 % of 70 Gy is 4.55 Gy.
    with nullcontext() if is_given else pytest.raises(BadCase, match="from the nearest that 2 beams can give, at most"):
        deliverable.refuse_undeliverable(make_case(), apart_gy, BEAMS)


@pytest.mark.parametrize(("gy", "apart_gy"), [(6.99, 0.0), (7.01, 1.0)])
def test_voxels_of_a_tenth_of_the_highest_dose_are_held_against_what_beams_give(
    gy: float, apart_gy: float, make_case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    dose = np.array([[[70.0, gy]]], np.float32)
    monkeypatch.setattr(deliverable, "fields_of", lambda *_: None)
    monkeypatch.setattr(deliverable, "nearest_dose", lambda *_: dose + np.array([[[0.0, 2.0]]], np.float32))
    assert deliverable.undeliverable_gy(make_case(), dose, BEAMS) == pytest.approx(apart_gy)


@pytest.mark.parametrize(("gy", "percent"), [(9.9, 100.0), (10.1, 52.5)])
def test_the_gap_is_judged_from_a_tenth_of_the_predicted_maximum_on(
    gy: float, percent: float, make_case: Callable[..., Case]
) -> None:
    # One half is delivered as predicted; of the other the one row of twenty that lies beside it agrees.
    case = make_case()
    predicted = np.full(case.grid.shape_zyx, 100.0, np.float32)
    predicted[:, 20:] = gy
    delivered = np.where(predicted == 100.0, predicted, 0.0).astype(np.float32)
    found = dose_gap(case, predicted, delivered, [(1.0, 1.0)])
    assert found["gamma_1_1_percent"] == pytest.approx(percent)


def test_a_plan_is_moved_by_three_and_five_mm_and_made_denser_wider_and_weaker() -> None:
    machine = load_machine()
    plan: Any = SimpleNamespace(arcs=())
    density = DensityMap(np.ones((2, 2, 2), np.float32), Grid((2, 2, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    plain = "doseledger.deliver.robustness._moved"
    moved: list[tuple[int, float]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, lambda plan, axis, by_mm: moved.append((axis, by_mm)) or plan)
        found = {each.name: each for each in scenarios(plan, density, machine)}
    assert moved == [(axis, sign * mm) for mm in (3.0, 5.0) for axis in range(3) for sign in (1.0, -1.0)]
    assert [found[f"density {by} %"].density.relative.max() for by in ("+3", "-3")] == pytest.approx([1.03, 0.97])
    for what, by in (("width", 10), ("attenuation", 2)):
        for sign in (1, -1):
            beam = found[f"beam {what} {sign * by:+d} %"].machine.beam
            share = {
                "width": beam.sigma_mm[0] / machine.beam.sigma_mm[0],
                "attenuation": beam.attenuation_per_mm / machine.beam.attenuation_per_mm,
            }
            assert share == pytest.approx({"width": 1.0, "attenuation": 1.0} | {what: 1.0 + sign * by / 100.0})


@pytest.mark.parametrize(("grid_mm", "n_inside", "dose_gy"), [(None, 288, 40.0), (3.0, 2304, 40.0), (12.0, 36, 40.0)])
def test_a_dose_on_another_grid_is_the_bodys_own_mean_where_half_of_it_is_body(
    grid_mm: float | None, n_inside: int, dose_gy: float
) -> None:
    grid, body = Grid((8, 10, 12), (6.0, 6.0, 6.0), (0.0, 0.0, 0.0)), np.zeros((8, 10, 12), np.bool_)
    body[2:6, 2:8, :] = True
    case: Any = SimpleNamespace(full_grid=grid, crop=(slice(0, 8), slice(0, 10), slice(0, 12)), body=body)
    found, own = dose_on_grid(case, np.where(body, np.float32(40.0), np.float32(0.0)), grid_mm)
    assert own.spacing_mm == ((grid_mm,) * 3 if grid_mm else (6.0, 6.0, 6.0))
    inside = found > 0
    assert int(inside.sum()) == n_inside
    # The zeros of the air beside it take nothing away.
    assert found[inside].min() == found[inside].max() == pytest.approx(dose_gy, rel=1e-5)


@pytest.mark.parametrize(("shares", "label"), [((0.6, 0.0), 1), ((0.3, 0.25), 1), ((0.25, 0.3), 2), ((0.2, 0.25), 0)])
def test_a_voxel_is_the_structures_that_has_most_of_it_if_all_have_half(
    shares: tuple[float, float], label: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Grid((1, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    labels = np.array([[[1, 2]]], np.uint8)
    case: Any = SimpleNamespace(full_shape_zyx=(1, 1, 2), crop=(slice(None),) * 3)
    protocol: Any = SimpleNamespace(spacing_mm=(0.5, 0.5, 0.5))
    drawn = iter(shares)
    monkeypatch.setattr(nifti, "resample_linear", lambda *args: np.full((1, 1, 1), next(drawn), np.float32))
    assert on_image_grid(labels, case, image, protocol).tolist() == [[[label]]]


def test_labels_of_the_images_own_grid_stay_as_they_are() -> None:
    image, labels = Grid((1, 1, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)), np.array([[[1, 2]]], np.uint8)
    case: Any = SimpleNamespace(full_shape_zyx=(1, 1, 3), crop=(slice(None), slice(None), slice(1, 3)))
    for spacing_mm in ("native", (1.0, 1.0, 1.0)):
        protocol: Any = SimpleNamespace(spacing_mm=spacing_mm)
        assert on_image_grid(labels, case, image, protocol).tolist() == [[[0, 1, 2]]]

"""Each limit on a case: just inside passes, just outside is named, and what is no number never passes.

The numbers are written out: a limit that grows in the code or in thresholds.yaml is noticed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from doseledger.core.case import Case
from doseledger.core.errors import BadInput
from doseledger.core.files import to_json, write_text
from doseledger.core.grid import Grid
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import Protocol
from doseledger.gates.data.cohort import CaseReport
from doseledger.gates.data.distances import judge_distances
from doseledger.gates.data.doses import judge_dose
from doseledger.gates.data.fingerprints import Fingerprint
from doseledger.gates.data.grids import judge_grid
from doseledger.gates.data.images import judge_image
from doseledger.gates.data.leakage import judge_copies
from doseledger.gates.data.outliers import judge_outliers
from doseledger.gates.data.placement import Placement, judge_dose_mirrored, judge_dose_place, judge_placement
from doseledger.gates.data.slices import Slices, judge_slices, measure_slices
from doseledger.gates.data.structures import judge_structures
from doseledger.gates.limits import DataLimits, ImageLimits, load_thresholds
from doseledger.gates.verdict import Finding

Healthy = Callable[[int], Case]
NO_NUMBERS = [math.nan, math.inf, -math.inf]


def gates(findings: list[Finding]) -> set[str]:
    return {finding.gate for finding in findings if finding.severity == "error"}


def some(mask: np.ndarray, share: float) -> np.ndarray:
    """The first voxels of a mask, so many of them."""
    chosen = np.zeros(mask.size, bool)
    indices = np.flatnonzero(mask)
    chosen[indices[: round(share * len(indices))]] = True
    return chosen.reshape(mask.shape)


@pytest.fixture
def round_case(healthy: Healthy) -> Case:
    """A case whose Bladder has 1,000 voxels, so that shares are whole voxels."""
    case = healthy(1)
    masks = np.array(case.masks)
    masks[case.structure_names.index("Bladder")] = some(case.mask("Bladder"), 1000 / case.mask("Bladder").sum())
    return replace(case, masks=masks)


# The dose.


@pytest.mark.parametrize(("off_gy", "is_kept"), [(0.0, True), (0.049, True), (-0.049, True), (0.051, False)])
def test_a_prescription_may_be_off_by_the_twentieth_of_a_gray(
    off_gy: float, is_kept: bool, healthy: Healthy, protocol: Protocol, limits: DataLimits
) -> None:
    case = replace(healthy(1), prescription_gy={"PTV70": 70.0 + off_gy, "PTV56": 56.0})
    assert ("prescription" in gates(judge_dose(case, protocol, limits))) is not is_kept


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_a_prescription_that_is_no_number_is_named(
    value: float, healthy: Healthy, protocol: Protocol, limits: DataLimits
) -> None:
    case = replace(healthy(1), prescription_gy={"PTV70": value, "PTV56": 56.0})
    assert "prescription" in gates(judge_dose(case, protocol, limits))


@pytest.mark.parametrize(("most_gy", "gate"), [(35.1, ""), (34.9, "dose_unit"), (139.9, ""), (140.1, "dose_unit")])
def test_a_maximum_lies_between_half_and_twice_the_prescription(
    most_gy: float, gate: str, healthy: Healthy, protocol: Protocol, limits: DataLimits
) -> None:
    case = healthy(1)
    assert case.dose_gy is not None
    scaled = (case.dose_gy * np.float32(most_gy / float(case.dose_gy.max()))).astype(np.float32)
    found = gates(judge_dose(replace(case, dose_gy=scaled), protocol, limits))
    assert ("dose_unit" in found) is (gate == "dose_unit")


@pytest.mark.parametrize(("least_gy", "is_kept"), [(-0.0099, True), (-0.0101, False)])
def test_a_dose_falls_to_the_hundredth_of_a_gray_below_zero_at_most(
    least_gy: float, is_kept: bool, healthy: Healthy, protocol: Protocol, limits: DataLimits
) -> None:
    case = healthy(1)
    assert case.dose_gy is not None
    dose = case.dose_gy.copy()
    dose[0, 0, 0] = least_gy
    assert ("dose_negative" in gates(judge_dose(replace(case, dose_gy=dose), protocol, limits))) is not is_kept


def with_native(case: Case, name: str, **changes: Any) -> Case:
    parity = case.meta["parity"]
    return replace(case, meta={**case.meta, "parity": {**parity, name: {**parity[name], **changes}}})


# Structure, statistic, how far it may move, and in which unit of the native value the move is meant.
PARITY = [("PTV70", "D95%", 0.999, 1.001), ("PTV70", "D95%", -0.999, -1.001), ("Rectum", "mean", 0.499, 0.501)]


@pytest.mark.parametrize(("name", "statistic", "inside", "outside"), PARITY)
def test_resampling_may_move_a_target_by_one_gray_and_an_organ_by_half(
    name: str, statistic: str, inside: float, outside: float, healthy: Healthy, protocol: Protocol, limits: DataLimits
) -> None:
    case = healthy(1)
    now = case.meta["parity"][name][statistic]
    for moved, wanted in ((inside, set()), (outside, {"parity"})):
        assert gates(judge_dose(with_native(case, name, **{statistic: now + moved}), protocol, limits)) == wanted


@pytest.mark.parametrize(
    ("share", "is_kept"), [(1 / 1.099, True), (1 / 1.101, False), (1 / 0.901, True), (1 / 0.899, False)]
)
def test_a_volume_may_move_by_a_tenth(
    share: float, is_kept: bool, healthy: Healthy, protocol: Protocol, limits: DataLimits
) -> None:
    case = healthy(1)
    was = case.meta["parity"]["Bladder"]["volume_cc"] * share
    found = judge_dose(with_native(case, "Bladder", volume_cc=was), protocol, limits)
    assert (found == []) is is_kept


@pytest.mark.parametrize(("n_voxels", "is_compared"), [(23, False), (24, True)])
def test_a_volume_below_five_cc_is_not_compared(
    n_voxels: int, is_compared: bool, healthy: Healthy, protocol: Protocol, limits: DataLimits
) -> None:
    # A voxel has 0.216 cc; natively there was next to nothing.
    case = healthy(1)
    masks = np.array(case.masks)
    masks[case.structure_names.index("Bladder")] = some(case.mask("Bladder"), n_voxels / case.mask("Bladder").sum())
    case = replace(case, masks=masks)
    assert case.dose_gy is not None
    mean = float(case.dose_gy[case.mask("Bladder")].mean(dtype=np.float64))
    found = judge_dose(with_native(case, "Bladder", mean=mean, volume_cc=1.0), protocol, limits)
    assert bool(found) is is_compared


@pytest.mark.parametrize("value", [*NO_NUMBERS, None, "much"])
@pytest.mark.parametrize(("name", "key"), [("PTV70", "D95%"), ("Rectum", "mean"), ("Bladder", "volume_cc")])
def test_a_native_value_that_is_no_number_leaves_parity_unknown(
    name: str, key: str, value: Any, healthy: Healthy, protocol: Protocol, limits: DataLimits
) -> None:
    found = judge_dose(with_native(healthy(1), name, **{key: value}), protocol, limits)
    assert [(finding.gate, name in finding.message) for finding in found] == [("parity_unknown", True)]


# Where the dose is valid.


def test_nothing_to_compare_is_an_error(healthy: Healthy, protocol: Protocol, limits: DataLimits) -> None:
    # Bladder and all others have voxels, none of which counts: the parity gate must not read that as a pass.
    case = healthy(1)
    empty = replace(case, valid_dose=np.zeros_like(case.valid_dose))
    assert gates(judge_dose(empty, protocol, limits)) == {"valid_dose_empty"}
    nothing = replace(case, present=np.zeros_like(case.present))
    (finding,) = [f for f in judge_dose(nothing, protocol, limits) if f.gate == "parity_unknown"]
    assert "not one structure could be compared" in finding.message


def test_a_structure_without_a_native_dose_is_not_compared(
    healthy: Healthy, protocol: Protocol, limits: DataLimits
) -> None:
    case = healthy(1)
    cut = case.valid_dose & ~case.mask("Bladder")
    box = {"shape_zyx": [1, 1, 1], "spacing_mm": [1.0, 1.0, 1.0], "origin_mm": [0.0, 0.0, 0.0]}
    case = replace(case, valid_dose=cut, meta={**case.meta, "native_dose_grid": box})
    unknown = [f.message for f in judge_dose(case, protocol, limits) if f.gate == "parity_unknown"]
    assert len(unknown) == 1
    assert "no dose is defined (valid_dose) in any voxel of Bladder" in unknown[0]
    beyond = with_native(case, "Bladder", points=0)
    assert not [f for f in judge_dose(beyond, protocol, limits) if f.gate == "parity_unknown"]


@pytest.mark.parametrize(("per_mille", "is_kept"), [(1.0, True), (2.0, False)])
def test_a_thousandth_of_a_target_may_lie_where_no_dose_is_valid(
    per_mille: float, is_kept: bool, healthy: Healthy, protocol: Protocol, limits: DataLimits
) -> None:
    case = healthy(1)
    masks = np.array(case.masks)
    masks[0] = some(case.body, 1000 / case.body.sum())
    cut = case.valid_dose & ~some(masks[0], per_mille / 1000)
    found = judge_dose(replace(case, masks=masks, valid_dose=cut), protocol, limits)
    assert ("valid_dose_target" in gates(found)) is not is_kept


@pytest.mark.parametrize(("share", "is_kept"), [(0.0009, True), (0.0011, False)])
@pytest.mark.parametrize("beyond", [False, True])
def test_a_thousandth_of_the_body_may_be_valid_or_not_by_mistake(
    beyond: bool, share: float, is_kept: bool, healthy: Healthy, protocol: Protocol, limits: DataLimits
) -> None:
    case = healthy(1)
    wrong = round(share * case.body.sum())
    if beyond:
        valid = case.valid_dose | some(~case.body, wrong / (~case.body).sum())
    else:
        valid = case.valid_dose & ~some(
            case.body & ~case.masks.any(axis=0), wrong / (case.body & ~case.masks.any(0)).sum()
        )
    assert ("valid_dose" in gates(judge_dose(replace(case, valid_dose=valid), protocol, limits))) is not is_kept


def test_the_dose_is_valid_up_to_half_a_dose_voxel_beyond_its_outermost_centres(
    healthy: Healthy, protocol: Protocol, limits: DataLimits
) -> None:
    case = healthy(1)
    # The dose grid ends in the image's tenth slice, whose centre lies half a dose voxel beyond its last one.
    z = case.grid.axes_mm()[0]
    native = {
        "shape_zyx": [9, 40, 48],
        "spacing_mm": [6.0, 6.0, 6.0],
        "origin_mm": [z[0] + 3.0, *case.grid.origin_mm[1:]],
    }
    valid = case.body & (np.arange(24) < 10)[:, None, None]
    case = replace(case, valid_dose=valid, meta={**case.meta, "native_dose_grid": native})
    assert "valid_dose" not in gates(judge_dose(case, protocol, limits))
    short = {**native, "origin_mm": [z[0] + 2.9, *case.grid.origin_mm[1:]]}
    case = replace(case, meta={**case.meta, "native_dose_grid": short})
    assert "valid_dose" in gates(judge_dose(case, protocol, limits))
    unknown = replace(case, meta={**case.meta, "native_dose_grid": None})
    assert "valid_dose_unknown" in gates(judge_dose(unknown, protocol, limits))


@pytest.mark.parametrize(("share", "is_kept"), [(0.099, True), (0.101, False)])
def test_a_tenth_of_the_valid_voxels_may_have_no_dose(
    share: float, is_kept: bool, healthy: Healthy, protocol: Protocol, limits: DataLimits
) -> None:
    case = healthy(1)
    assert case.dose_gy is not None
    # The lowest doses are lost: the maximum stays, so that the unit is not asked first.
    ranks = np.full(case.dose_gy.shape, np.inf)
    ranks[case.valid_dose] = np.argsort(np.argsort(case.dose_gy[case.valid_dose]))
    lost = ranks < round(share * case.valid_dose.sum())
    dose = np.where(lost, 0.0, np.maximum(case.dose_gy, 0.1)).astype(np.float32)
    assert ("dose_zero" in gates(judge_dose(replace(case, dose_gy=dose), protocol, limits))) is not is_kept


# Structures.


@pytest.mark.parametrize(("name", "share", "is_kept"), [
    ("Bladder", 0.019, True), ("Bladder", 0.021, False), ("PTV70", 0.049, True), ("PTV70", 0.051, False),
])  # fmt: skip
def test_a_fiftieth_of_an_organ_and_a_twentieth_of_a_target_may_lie_outside_the_body(
    name: str, share: float, is_kept: bool, healthy: Healthy, protocol: Protocol, limits: DataLimits
) -> None:
    case = healthy(1)
    masks = np.array(case.masks)
    masks[case.structure_names.index(name)] = some(case.body, 1000 / case.body.sum())
    case = replace(case, masks=masks)
    case = replace(case, body=case.body & ~some(case.mask(name), share))
    found = [f for f in judge_structures(case, protocol, limits) if f.numbers.get("structure") == name]
    assert bool(found) is not is_kept


@pytest.mark.parametrize(("pair", "n_shared", "is_kept"), [
    (("Rectum", "Bladder"), 50, True), (("Rectum", "Bladder"), 51, False), (("Femur_L", "Femur_R"), 0, True),
    (("Femur_L", "Femur_R"), 1, False), (("Bladder", "Femur_R"), 1, False),
])  # fmt: skip
def test_rectum_and_bladder_may_share_a_twentieth_and_bones_nothing(
    pair: tuple[str, str], n_shared: int, is_kept: bool, round_case: Case, protocol: Protocol, limits: DataLimits
) -> None:
    one, other = (round_case.structure_names.index(name) for name in pair)
    masks = np.array(round_case.masks)
    masks[other] = some(round_case.body & ~masks[one], 1000 / (round_case.body & ~masks[one]).sum())
    masks[one] = some(round_case.body & ~masks[other], 1000 / (round_case.body & ~masks[other]).sum())
    masks[one] = masks[one] & ~some(masks[one], n_shared / 1000) | some(masks[other], n_shared / 1000)
    found = judge_structures(replace(round_case, masks=masks), protocol, limits)
    shared = [f for f in found if f.gate == "mask_overlap" and f.numbers["structures"] == list(pair)]
    assert bool(shared) is not is_kept


@pytest.mark.parametrize(("held", "is_kept"), [(0.901, True), (0.899, False)])
def test_a_ptv_holds_nine_tenths_of_its_prostate(
    held: float, is_kept: bool, healthy: Healthy, protocol: Protocol, limits: DataLimits
) -> None:
    case = healthy(1)
    masks = np.array(case.masks)
    masks[case.structure_names.index("Prostate")] = some(case.body, 1000 / case.body.sum())
    masks[0] = some(masks[case.structure_names.index("Prostate")], held)
    found = judge_structures(replace(case, masks=masks), protocol, limits)
    assert ("mask_not_contained" in gates(found)) is not is_kept


# Distances and the grid.


@pytest.mark.parametrize(("off_mm", "is_kept"), [(0.03, True), (0.1, False)])
def test_an_absent_structure_is_at_the_clip_distance_to_float16(
    off_mm: float, is_kept: bool, healthy: Healthy, limits: DataLimits
) -> None:
    case = healthy(1)
    sdf = np.array(case.sdf_mm)
    sdf[case.structure_names.index("Bowel")] = np.float16(50.0 - off_mm)
    assert ("sdf_absent" in gates(judge_distances(replace(case, sdf_mm=sdf), 50.0, limits.sdf))) is not is_kept


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_a_distance_that_is_no_number_is_named(value: float, healthy: Healthy, limits: DataLimits) -> None:
    case = healthy(1)
    for name in ("Bowel", "Rectum"):
        sdf = np.array(case.sdf_mm)
        sdf[case.structure_names.index(name), 0, 0, 0] = value
        assert gates(judge_distances(replace(case, sdf_mm=sdf), 50.0, limits.sdf)) == {"nan"}


@pytest.mark.parametrize(("factor", "is_kept"), [(1.09, True), (1.105, False), (0.91, True), (0.88, False)])
def test_a_distance_may_be_off_by_a_tenth_and_a_voxel(
    factor: float, is_kept: bool, healthy: Healthy, limits: DataLimits
) -> None:
    # Femur_L is far from the image's middle: most of the voxels sampled lie where a tenth is more than a voxel.
    case = healthy(1)
    sdf = np.array(case.sdf_mm)
    index = case.structure_names.index("Femur_L")
    sdf[index] = np.clip(factor * sdf[index].astype(np.float32), -50.0, 50.0).astype(np.float16)
    found = [f for f in judge_distances(replace(case, sdf_mm=sdf), 50.0, limits.sdf) if f.gate == "sdf_not_mm"]
    assert bool(found) is not is_kept


def test_a_map_that_nothing_can_be_said_of_is_told(healthy: Healthy, limits: DataLimits) -> None:
    case = healthy(1)
    masks, sdf = np.array(case.masks), np.array(case.sdf_mm)
    masks[case.structure_names.index("Rectum")], sdf[case.structure_names.index("Rectum")] = True, -50.0
    found = judge_distances(replace(case, masks=masks, sdf_mm=sdf), 50.0, limits.sdf)
    assert [(finding.gate, finding.severity) for finding in found] == [("sdf_unjudged", "warning")]


@pytest.mark.parametrize(("off_mm", "is_kept"), [(0.0009, True), (0.00105, False)])
def test_a_spacing_may_be_off_by_the_thousandth_of_a_mm(
    off_mm: float, is_kept: bool, healthy: Healthy, protocol: Protocol
) -> None:
    case = healthy(1)
    grid = Grid(case.grid.shape_zyx, (6.0, 6.0 + off_mm, 6.0), case.grid.origin_mm)
    assert ("grid" in gates(judge_grid(replace(case, grid=grid), protocol))) is not is_kept


@pytest.mark.parametrize(("off_mm", "is_kept"), [(0.0099, True), (0.0101, False), (50.0, False)])
def test_a_case_lies_where_its_raw_image_lay(
    off_mm: float, is_kept: bool, healthy: Healthy, protocol: Protocol
) -> None:
    case = healthy(1)
    z, y, x = case.grid.origin_mm
    moved = replace(case, grid=Grid(case.grid.shape_zyx, case.grid.spacing_mm, (z, y, x + off_mm)))
    assert ("grid_place" in gates(judge_grid(moved, protocol))) is not is_kept
    unknown = replace(case, meta={**case.meta, "native_image_grid": None})
    assert gates(judge_grid(unknown, protocol)) == {"grid_unknown"}
    other = replace(case, full_shape_zyx=(25, 40, 48))
    assert "grid_place" in gates(judge_grid(other, protocol))


def test_an_openkbp_case_has_its_middle_at_zero(healthy: Healthy, protocol: Protocol) -> None:
    challenge = protocol.model_copy(update={"source": "openkbp", "spacing_mm": "native", "crop": "none"})
    case = healthy(1)
    centred = replace(case, grid=Grid(case.grid.shape_zyx, (6.0, 6.0, 6.0), (-69.0, -117.0, -141.0)))
    assert judge_grid(centred, challenge) == []
    assert gates(judge_grid(case, challenge)) == {"grid_place"}


# The image.


def place(fit: float, share: float) -> Placement:
    return Placement(fit, fit / share, "moved by +6.0 mm along x")


@pytest.fixture
def image_limits(limits: DataLimits) -> ImageLimits:
    assert limits.image is not None
    return limits.image


@pytest.mark.parametrize(("what", "fit", "share", "gate"), [
    ("skin", 0.301, 1.0, ""), ("skin", 0.299, 1.0, "image_fit"), ("skin", 0.6, 0.851, ""),
    ("skin", 0.6, 0.849, "image_place"), ("organ", 0.181, 1.0, ""), ("organ", 0.179, 1.0, "image_fit"),
    ("organ", 0.3, 0.851, ""), ("organ", 0.3, 0.849, "image_place"),
    *((what, value, 1.0, "image_fit") for what in ("skin", "organ") for value in NO_NUMBERS),
])  # fmt: skip
def test_contours_fit_the_image_and_nowhere_better(
    what: str, fit: float, share: float, gate: str, healthy: Healthy, image_limits: ImageLimits
) -> None:
    found = {"skin": place(0.9, 1.2), "organ": place(0.4, 1.2), what: place(fit, share)}
    assert gates(judge_placement(healthy(1), found, image_limits)) == ({gate} if gate else set())


@pytest.mark.parametrize(("best", "is_judged"), [(0.0499, False), (0.0501, True)])
def test_outlines_that_fit_nowhere_say_nothing_of_their_place(
    best: float, is_judged: bool, healthy: Healthy, image_limits: ImageLimits
) -> None:
    poor = image_limits.model_copy(update={"least_organ_fit": 0.0})
    found = {"skin": place(0.9, 1.2), "organ": Placement(0.01, best, "mirrored left to right")}
    assert bool(judge_placement(healthy(1), found, poor)) is is_judged


@pytest.mark.parametrize(("share", "severity"), [
    (1.001, ""), (0.999, "warning"), (0.901, "warning"), (0.899, "error"), (math.nan, "error"),
])  # fmt: skip
def test_a_dose_fits_the_main_target_and_nowhere_better(
    share: float, severity: str, healthy: Healthy, image_limits: ImageLimits
) -> None:
    findings = judge_dose_place(healthy(1), place(0.5, share), image_limits.dose_share)
    assert [(finding.gate, finding.severity) for finding in findings] == (
        [("dose_place", severity)] if severity else []
    )


@pytest.mark.parametrize(("covered", "severity"), [(0.9991, ""), (0.9989, "error"), (math.nan, "error")])
def test_a_dose_that_covers_the_target_in_place_is_its_own_however_wide_the_fields(
    covered: float, severity: str, healthy: Healthy, image_limits: ImageLimits
) -> None:
    found = replace(place(0.1, 0.5), covered=covered)
    findings = judge_dose_place(healthy(1), found, image_limits.dose_share)
    assert [finding.severity for finding in findings] == ([severity] if severity else [])


@pytest.mark.parametrize(("fit", "best", "is_kept"), [
    (0.451, 0.5, True), (0.449, 0.5, False), (0.01, 0.0499, True), (0.01, 0.0501, False), (math.nan, 0.5, False),
    (math.nan, math.nan, True),
])  # fmt: skip
def test_the_skin_fits_the_dose_nine_tenths_as_well_as_a_mirrored_one(
    fit: float, best: float, is_kept: bool, healthy: Healthy, image_limits: ImageLimits
) -> None:
    found = Placement(fit, best, "mirrored left to right")
    assert (not judge_dose_mirrored(healthy(1), found, image_limits.least_dose_skin_share)) is is_kept


@pytest.mark.parametrize("limit", ["least_skin_fit", "least_organ_fit", "least_skin_share", "least_organ_share",
                                   "least_dose_skin_share"])  # fmt: skip
def test_a_place_is_held_to_the_limit_of_its_cohort(
    limit: str, healthy: Healthy, protocol: Protocol, image_limits: ImageLimits
) -> None:
    case = healthy(1)
    before = judge_image(case, protocol, image_limits)[0]
    found = judge_image(case, protocol, image_limits.model_copy(update={limit: 1e9}))[0]
    assert before == []
    gate = "image_fit" if limit.endswith("fit") else "dose_place" if "dose" in limit else "image_place"
    assert gates(found) == {gate}


def test_a_dose_of_wide_fields_is_in_place(healthy: Healthy, judge: Callable[[Case], CaseReport]) -> None:
    case = healthy(1)
    outside = ndimage.distance_transform_edt(~case.mask("PTV70"), sampling=case.grid.spacing_mm)
    slope = np.clip(1.05 - np.maximum(outside - 9.0, 0.0) / 20.0, 0.0, None)
    wide = replace(case, dose_gy=np.where(case.body, 70.0 * slope, 0.0).astype(np.float32))
    assert "dose_place" not in {finding.gate for finding in judge(wide).findings}


def test_slices_of_an_image_without_noise_are_alike_and_none_is_called_a_repeat(healthy: Healthy) -> None:
    case = healthy(1)
    image, rows = np.zeros_like(case.ct_hu), case.ct_hu.shape[1]
    for z in range(1, len(image)):
        image[z:, : 1 if z == 5 else round(0.3 * rows)] += 1
    found = measure_slices(replace(case, ct_hu=image, body=np.ones_like(case.body)))
    assert math.isnan(found.same_percent)


def test_a_case_without_an_organ_is_told(healthy: Healthy, image_limits: ImageLimits) -> None:
    case = healthy(1)
    alone = replace(case, present=np.array([name in case.prescription_gy for name in case.structure_names]))
    found = {"skin": place(0.9, 1.2), "organ": Placement(math.nan, math.nan, "")}
    (finding,) = judge_placement(alone, found, image_limits)
    assert (finding.gate, finding.severity) == ("image_unasked", "warning")


@pytest.mark.parametrize(("changes", "gate", "severity"), [
    ({"jump_ratio": 2.99}, "", ""), ({"jump_ratio": 3.01}, "slice_jump", "warning"),
    ({"jump_ratio": 3.99}, "slice_jump", "warning"), ({"jump_ratio": 4.01}, "slice_jump", "error"),
    ({"air_percent": 49.9}, "", ""), ({"air_percent": 50.1}, "slice_air", "error"),
    ({"dose_jump_gy": 2.99}, "", ""), ({"dose_jump_gy": 3.01}, "dose_jump", "error"),
    ({"same_percent": 89.9}, "", ""), ({"same_percent": 90.1}, "slice_repeat", "error"),
    ({"same_dose_percent": 89.9}, "", ""), ({"same_dose_percent": 90.1}, "slice_repeat", "error"),
    ({"same_percent": math.nan, "same_dose_percent": math.nan}, "", ""),
    *(({"jump_ratio": value}, "slice_jump", "error") for value in NO_NUMBERS),
    *(({"air_percent": value}, "slice_air", "error") for value in NO_NUMBERS),
    *(({"dose_jump_gy": value}, "dose_jump", "error") for value in NO_NUMBERS),
])  # fmt: skip
def test_a_slice_goes_with_its_neighbours(
    changes: dict[str, float], gate: str, severity: str, healthy: Healthy, image_limits: ImageLimits
) -> None:
    where = {"jump_ratio": 5, "air_percent": 6, "dose_jump_gy": 7, "same_percent": 8, "same_dose_percent": 9}
    found = replace(Slices(1.5, 2.0, 0.5, 5.0, 1.0, where), **changes)
    findings = judge_slices(healthy(1), found, image_limits)
    assert [(finding.gate, finding.severity) for finding in findings] == ([(gate, severity)] if gate else [])


# The cohort.


@pytest.mark.parametrize(("ratio", "severity"), [(1.99, ""), (2.01, "warning"), (3.99, "warning"), (4.01, "error")])
def test_a_case_may_be_twice_as_far_as_the_middle_one(
    ratio: float, severity: str, limits: DataLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"case_id": f"case_{i:04d}", "distance": 1.0, "features": {"ct_median_body_hu": 2.0}} for i in range(15)]
    rows[7]["distance"] = ratio
    monkeypatch.setattr("doseledger.gates.data.outliers.measure_left_out", lambda inputs: rows)
    findings, _ = judge_outliers(pd.DataFrame(index=range(15)), limits.outliers)
    assert [(f.case_id, f.gate, f.severity) for f in findings] == (
        [("case_0007", "outlier", severity)] if severity else []
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_distance_from_the_cohort_that_is_no_number_is_an_error(
    value: float, limits: DataLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"case_id": f"case_{i:04d}", "distance": 1.0, "features": {}} for i in range(15)]
    rows[3]["distance"] = value
    monkeypatch.setattr("doseledger.gates.data.outliers.measure_left_out", lambda inputs: rows)
    findings, _ = judge_outliers(pd.DataFrame(index=range(15)), limits.outliers)
    assert ("case_0003", "error") in {(finding.case_id, finding.severity) for finding in findings}


@pytest.mark.parametrize(("n", "gate"), [(14, "outlier_few"), (15, "outlier_blind")])
def test_fewer_than_fifteen_cases_are_not_held_against_each_other(n: int, gate: str, limits: DataLimits) -> None:
    copies = pd.DataFrame({"ct_median_body_hu": np.ones(n)}, index=[f"case_{i:04d}" for i in range(n)])
    (finding,), distances = judge_outliers(copies, limits.outliers)
    assert (finding.gate, distances) == (gate, [])


@pytest.mark.parametrize(("what", "correlation", "is_copy"), [
    ("ct", 0.949, False), ("ct", 0.951, True), ("dose", 0.994, False), ("dose", 0.996, True), ("ct", math.nan, True),
])  # fmt: skip
def test_two_cases_are_one_from_a_correlation_on(
    what: str, correlation: float, is_copy: bool, limits: DataLimits
) -> None:
    # Looks of 4 × 4 × 4 points; a corner is no mirror image of the point (1, 1, 1).
    corner, inner = np.eye(64, dtype=np.float32)[[0, 21]]
    side = math.sqrt(1 - correlation**2) if math.isfinite(correlation) else 0.0
    alike = (correlation * corner + side * inner).astype(np.float32)
    looks = {"ct": inner, "dose": inner, what: alike}
    prints = {"a": Fingerprint("a", "a", corner, corner), "b": Fingerprint("b", "b", looks["ct"], looks["dose"])}
    cases = pd.DataFrame({"case_id": ["a", "b"], "pseudonym": ["p", "q"], "source_sha256": ["1", "2"]})
    splits = pd.DataFrame({"case_id": [], "split": [], "repeat": [], "fold": []})
    assert bool(judge_copies(cases, splits, prints, limits.near_copy)) is is_copy


# Limits as they are written down.


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize(
    "path",
    [
        ("sdf", "max_wrong_percent"), ("body", "target_outside_percent"), ("dose_unit", "negative_gy"),
        ("parity", "organ_mean_gy"), ("valid_dose", "zero_percent"), ("image", "least_skin_fit"),
        ("outliers", "error_ratio"), ("near_copy", "ct_correlation"),
    ],
)  # fmt: skip
def test_a_limit_that_is_no_number_is_refused(path: tuple[str, str], value: float, layout: Layout) -> None:
    thresholds = load_thresholds(layout).model_dump(mode="json")
    thresholds["data"][path[0]][path[1]] = "VALUE"
    word = {"nan": ".nan", "inf": ".inf"}.get(str(value), "-.inf")
    write_text(layout.folders[0] / "thresholds.yaml", to_json(thresholds).replace('"VALUE"', word))
    with pytest.raises(BadInput, match=rf"{path[0]}\.{path[1]}: Input should be"):
        load_thresholds(layout)


@pytest.mark.parametrize(("factor", "hint"), [
    (60.0, "it looks like cGy: divide by 100"), (50.1, "it looks like cGy: divide by 100"),
    (49.9, "check DoseUnits and DoseGridScaling"), (1.29 / 28, "it looks like the dose of one fraction"),
    (1.31 / 28, "it looks normalised, or of one beam only"), (0.71 / 28, "it looks like the dose of one fraction"),
    (0.69 / 28, "it looks normalised, or of one beam only"),
])  # fmt: skip
def test_a_dose_of_another_unit_is_told_by_how_far_off_it_is(
    factor: float, hint: str, make_case: Callable[..., Case], protocol: Protocol, limits: DataLimits
) -> None:
    case = replace(make_case(), n_fractions=28)
    assert case.dose_gy is not None
    scaled = case.dose_gy * np.float32(70.0 * factor / case.dose_gy.max())
    (found,) = [f for f in judge_dose(replace(case, dose_gy=scaled), protocol, limits) if f.gate == "dose_unit"]
    assert found.message.endswith(f"where 70 Gy are prescribed; {hint}")

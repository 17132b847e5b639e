"""A cohort's fingerprint: of its own cases, without targets and what overlaps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from doseledger.core.case import Case
from doseledger.core.files import sha256_of_file
from doseledger.learn.data.fingerprint import fingerprint
from doseledger.learn.data.inputs import CaseFile, OpenCase, open_case


def opened(folder: Path, case: Case) -> OpenCase:
    path = folder / f"{case.case_id}.npz"
    case.save(path)
    return open_case(CaseFile(case.case_id, path, sha256_of_file(path)))


def test_organs_that_share_no_voxel_are_kept_and_the_others_told_with_their_reason(
    make_case: Callable[..., Case], tmp_path: Path
) -> None:
    first, second = make_case("case_0001"), make_case("case_0002", seed=4)
    names = list(first.structure_names)
    masks = first.masks.copy()
    masks[names.index("Bladder")] |= masks[names.index("Prostate")]
    # Bone is 500 HU above the rest.
    native = {**second.meta["native_image_grid"], "spacing_mm": [3.0, 1.0, 1.0]}
    second = replace(second, meta={**second.meta, "native_image_grid": native})
    found = fingerprint([opened(tmp_path, replace(first, masks=masks)), opened(tmp_path, second)])
    assert found.structure_names == ("Prostate", "Rectum", "Femur_L", "Femur_R")
    assert found.left_out["Bladder"] == "it shares voxels with Prostate"
    assert found.left_out["Bowel"] == "no training case has it"
    assert found.left_out["PTV70"].startswith("a target is prescribed to")
    assert found.shapes_zyx == [(24, 40, 48)] * 2
    assert found.native_spacings_mm == [(6.0, 6.0, 6.0), (3.0, 1.0, 1.0)]
    low, high = found.window
    assert -40 <= low <= 20
    assert 520 <= high <= 580
    assert low % 10 == high % 10 == 0


def test_the_window_is_of_structures_alone(make_case: Callable[..., Case], tmp_path: Path) -> None:
    case = make_case()
    values = case.ct_hu.copy()
    values[~case.masks.any(axis=0)] = 3000
    assert fingerprint([opened(tmp_path, replace(case, ct_hu=values))]).window[1] < 600
    assert np.isfinite(fingerprint([opened(tmp_path, case)]).window).all()


def test_cases_of_other_sizes_that_have_targets_alone_give_no_structure(
    make_case: Callable[..., Case], tmp_path: Path
) -> None:
    cases = []
    for case, n in ((make_case("case_0001"), 24), (make_case("case_0002"), 22)):
        assert case.dose_gy is not None
        organs = [name not in case.prescription_gy for name in case.structure_names]
        masks = case.masks[:, :n].copy()
        masks[organs] = False
        cut = {name: getattr(case, name)[:n] for name in ("ct_hu", "body", "dose_gy", "valid_dose")}
        grid = replace(case.grid, shape_zyx=(n, *case.grid.shape_zyx[1:]))
        cases.append(opened(tmp_path, replace(case, grid=grid, masks=masks, sdf_mm=case.sdf_mm[:, :n], **cut)))
    found = fingerprint(cases)
    assert found.structure_names == ()
    assert found.window == (-1000.0, 1000.0)

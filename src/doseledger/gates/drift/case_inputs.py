"""A case's inputs as one row of numbers, by which cohorts are told apart."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.grid import box_around
from doseledger.core.pool.cluster import Scale
from doseledger.core.pool.fanout import over_cases
from doseledger.core.project.protocol import Protocol
from doseledger.core.types import Tell
from doseledger.gates.features import Row, is_mr, measure_anatomy, measure_image

# Gas and lung, fat, water and soft tissue, contrast and spongy bone, dense bone and metal; in HU.
HU_EDGES = (-300, -150, -50, 0, 50, 100, 200, 400)
# MR in thousandths of its own range: as many ranges, of like width.
MR_EDGES = (50, 200, 350, 500, 650, 800, 950, 1100)
# Of the columns that tell which share of the body lies in a range.
SHARE = re.compile(r"(hu|mr)_share_")
SINGLE_VOXELS = ("ct_min_hu", "ct_max_hu", "mr_min", "mr_max")


def measure_inputs(case: Case, protocol: Protocol, anatomy: Row | None = None) -> Row:
    """Return the features of a case that a model is given; NaN where a structure is absent.

    Of a cohort without prescription they are the image's alone: its structures are what a model is asked for.

    Parameters
    ----------
    case
        A case, with dose or without: the dose is not looked at.
    anatomy
        What `measure_anatomy` says of it, if somebody asked before.

    Returns
    -------
    dict
        The features of `gates.features` that are not of the dose; the share of the body's voxels in each range of HU,
        or of MR (`hu_share_…`, `mr_share_…`, adding up to 1); presence of each structure (0 or 1); the extent of each
        target and the way from the main target's centre to each structure's in mm along z, y, x; prescriptions in Gy
        and fractions.
    """
    row = (anatomy or measure_anatomy(case)) if protocol.prescription_gy else measure_image(case)
    # The least and the most of a whole image are single voxels: a marker or a wire, not the cohort.
    row = {name: value for name, value in row.items() if name not in SINGLE_VOXELS}
    row |= _histogram(case)
    if not protocol.prescription_gy:
        return row
    main = _main_centre_mm(case)
    for name in case.structure_names:
        mask = case.mask(name)
        there = bool(mask.any())
        row[f"{name}_present"] = float(there)
        centre = case.grid.index_to_mm(np.argwhere(mask).mean(axis=0)) - main if there else np.full(3, np.nan)
        row |= {f"{name}_offset_{axis}_mm": float(way) for axis, way in zip("zyx", centre, strict=True)}
        if name in protocol.prescription_gy:
            row |= _extent(case, name)
    for name in protocol.prescription_gy:
        row[f"{name}_prescription_gy"] = case.prescription_gy.get(name, float("nan"))
    row["n_fractions"] = float("nan") if case.n_fractions is None else float(case.n_fractions)
    return row


def _histogram(case: Case) -> Row:
    inside = case.ct_hu[case.body]
    prefix, edges = ("mr_share_", MR_EDGES) if is_mr(case) else ("hu_share_", HU_EDGES)
    counts = np.bincount(np.searchsorted(edges, inside, side="right"), minlength=len(edges) + 1)
    names = [f"below_{edges[0]}", *(f"from_{low}" for low in edges)]
    return {f"{prefix}{name}": float(count) / max(inside.size, 1) for name, count in zip(names, counts, strict=True)}


def _extent(case: Case, name: str) -> Row:
    mask = case.mask(name)
    if not mask.any():
        return {f"{name}_extent_{axis}_mm": float("nan") for axis in "zyx"}
    sizes = [part.stop - part.start for part in box_around(mask)]
    return {
        f"{name}_extent_{axis}_mm": size * step
        for axis, size, step in zip("zyx", sizes, case.grid.spacing_mm, strict=True)
    }


def _main_centre_mm(case: Case) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    for name in sorted(case.prescription_gy, key=lambda item: -case.prescription_gy[item]):
        if case.mask(name).any():
            return case.grid.index_to_mm(np.argwhere(case.mask(name)).mean(axis=0))
    return np.full(3, np.nan)


def measure_file(path: Path, protocol: Protocol) -> Row:
    """Return the features of a case's file.

    Raises
    ------
    BadCase
        If it can't be read as a case, or has no body: what is measured of no voxel would count as neither near nor far.
    """
    case = Case.load(path)
    if not case.body.any():
        raise BadCase(case.case_id, "the body is empty, so nothing of its image can be measured; ingest it again")
    return measure_inputs(case, protocol)


def tabulate_inputs(
    cases_dir: Path, case_ids: Iterable[str], protocol: Protocol, *, scale: Scale, tell: Tell
) -> pd.DataFrame:
    """Return the features of some cases, a row each, by case.

    Parameters
    ----------
    cases_dir
        Folder of `<case>.npz`.

    Raises
    ------
    BadInput
        If there are none, or naming each case that can't be read: a gate that can't see its data fails.
    """
    outcome = over_cases(
        measure_file,
        {name: (cases_dir / f"{name}.npz", protocol) for name in sorted(case_ids)},
        scale,
        tell=tell,
    )
    if outcome.failed:
        raise BadInput(
            f"{len(outcome.failed)} case(s) can't be measured: " + "; ".join(str(e) for e in outcome.failed.values())
        )
    if not outcome.done:
        raise BadInput(f"{cases_dir}: no case to look at; look at the splits, and at what is in the folder")
    return pd.DataFrame(list(outcome.done.values())).set_index("case_id")

"""Control points of an RTPLAN as arrays: leaves, meterset, fluence.

One row a segment, the way between two control points, beams one after the other: what a model of leaves learns from.
The form is held by `validation/contracts/control_points.yaml`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from doseledger.core.case import write_npz
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import atomic_path, sha256_of_file
from doseledger.core.plan import Arc, Plan
from doseledger.core.types import Array
from doseledger.dicom.plan.read import read_leaf_boundaries, read_plan, read_prescription
from doseledger.dicom.source import lenient, malformed_as_bad_case, read_file
from doseledger.planning.dose.fluence import open_fraction
from doseledger.planning.machine.geometry import gantry_at
from doseledger.planning.machine.linac import Machine

CELL_MM = 2.5
REACH_MM = 200.0


def write_control_points(path: Path, out: Path, machine: Machine) -> dict[str, dict[str, int]]:
    """Return how many beams and segments each fraction group of an RTPLAN has, after writing each as NPZ.

    Parameters
    ----------
    out
        Folder that gets `<file>.npz`, or `<file>_<group>.npz` where there are several groups.
    machine
        Whose leaves' gap and transmission the fluence is made with; the leaves are the file's own.

    Raises
    ------
    BadInput
        If it is no RTPLAN of photon beams that leaves shape, or its beams have leaves of different kinds.
    """
    with lenient():
        dataset = read_file(path, "RTPLAN", "an RTPLAN")
        try:
            with malformed_as_bad_case(path.name):
                groups = sorted(read_prescription(dataset, path.name).n_fractions)
                plans = {group: read_plan(dataset, path.name, group) for group in groups}
                edges = {group: read_leaf_boundaries(dataset, path.name, group) for group in groups}
        except BadCase as error:
            raise BadInput(str(error)) from error
    found = {}
    for group, plan in plans.items():
        first = edges[group][0]
        if first is None or any(edge is None or not np.array_equal(edge, first) for edge in edges[group]):
            raise BadInput(f"{path.name}: its beams have no leaves, or of different kinds; wanted one kind for all")
        arrays = control_point_arrays(plan, first, machine)
        said = {"machine": plan.machine, "group": group, "sha256": sha256_of_file(path)}
        arrays["meta"] = np.asarray(json.dumps(said, sort_keys=True))
        name = path.stem if len(groups) == 1 else f"{path.stem}_{group}"
        with atomic_path(out / f"{name}.npz") as part:
            write_npz(part, arrays)
        found[name] = {"beams": len(plan.arcs), "segments": len(arrays["mu"])}
    return found


def control_point_arrays(plan: Plan, pair_edge_mm: Array, machine: Machine) -> dict[str, Array]:
    """Return the segments of a plan, in the order of delivery.

    Returns
    -------
    dict
        `beam` (segment), `gantry_deg` at the middle and `collimator_deg` (segment), `jaw_mm` (segment, X1 X2 Y1 Y2),
        `isocentre_mm` (segment, xyz), `leaf_mm` (segment, start or stop, bank, pair), `mu` (segment),
        `fluence_mu` (segment, pair, cell) behind leaves and jaws, and the edges `pair_edge_mm`, `cell_edge_mm`; all
        lengths in the isocentre plane.
    """
    cells = np.linspace(-REACH_MM, REACH_MM, round(2 * REACH_MM / CELL_MM) + 1)
    rows = [_segments(number, arc, pair_edge_mm, cells, machine) for number, arc in enumerate(plan.arcs)]
    found = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return {**found, "pair_edge_mm": np.asarray(pair_edge_mm), "cell_edge_mm": cells}


def _segments(number: int, arc: Arc, pairs: Array, cells: Array, machine: Machine) -> dict[str, Array]:
    n = arc.n_control_points - 1
    held = (*arc.jaw_x_mm, *arc.jaw_y_mm)
    jaws = np.tile(held, (n + 1, 1)) if arc.moving_jaws_mm is None else arc.moving_jaws_mm
    jaw = 0.5 * (jaws[1:] + jaws[:-1])
    passed = open_fraction(arc.leaf_mm, cells, machine.beam.leaf_gap_mm, machine.beam.leaf_transmission)
    passed *= _share(jaw[:, :2], cells)[:, None, :] * _share(jaw[:, 2:], pairs)[:, :, None]
    return {
        "beam": np.full(n, number, dtype=np.int16),
        "gantry_deg": np.asarray([gantry_at(arc, segment, 0.5) for segment in range(n)]),
        "collimator_deg": np.full(n, arc.collimator_deg, dtype=np.float64),
        "jaw_mm": jaw,
        "isocentre_mm": np.tile(np.asarray(arc.isocentre_xyz_mm, dtype=np.float64), (n, 1)),
        "leaf_mm": np.stack([arc.leaf_mm[:-1], arc.leaf_mm[1:]], axis=1).astype(np.float32),
        "mu": np.asarray(arc.segment_mu, dtype=np.float64),
        "fluence_mu": (passed * arc.segment_mu[:, None, None]).astype(np.float32),
    }


def _share(jaw_mm: Array, edge_mm: Array) -> Array:
    """Share of each interval between edges that two jaws leave open, (segment, interval)."""
    low, high = np.maximum(edge_mm[:-1], jaw_mm[:, :1]), np.minimum(edge_mm[1:], jaw_mm[:, 1:])
    return np.asarray(np.clip(high - low, 0.0, None) / np.diff(edge_mm))

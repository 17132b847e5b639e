"""Physics maps beside the cases, made of CT, contours and beams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from doseledger.core.case import Case
from doseledger.core.code import code_digest
from doseledger.core.digests import known_sha256
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import read_json, sha256_of_file, sha256_of_json, write_json
from doseledger.core.physics import write_physics
from doseledger.core.pool.cluster import Scale
from doseledger.core.pool.fanout import over_cases
from doseledger.core.project.protocol import Beams
from doseledger.core.schema import load_block
from doseledger.core.tables import PHYSICS, write_table
from doseledger.core.types import Tell
from doseledger.learn.data.inputs import CaseFile, OpenCase, defined_voxels
from doseledger.planning.fields.maps import FieldCase, FieldDose, field_dose, nearest_dose, physics_maps

if TYPE_CHECKING:
    from doseledger.learn.predict.predictor import Arrays, Predictor

Made = TypeVar("Made")
TABLE, KEYS = "physics.csv", "keys.json"
# With all that it reaches it decides the maps.
MAPS = "doseledger.planning.fields.maps"


def field_case(case: Case) -> FieldCase:
    """Return what the fields of a case are made of: its dose, and where one is defined, are left out.

    Raises
    ------
    BadCase
        If it has no target.
    """
    masks = {name: case.mask(name) for name in case.present_names if case.mask(name).any()}
    prescribed = {name: dose_gy for name, dose_gy in case.prescription_gy.items() if name in masks}
    if not prescribed:
        raise BadCase(case.case_id, "no target with a prescription is there to open fields to")
    return FieldCase(case.ct_hu, case.grid, case.body, masks, prescribed)


def fields_of(case: Case, beams: Beams) -> FieldDose:
    """Return the fields of a case.

    Raises
    ------
    BadCase
        If it has no target, or one that no field reaches.
    """
    return _of_fields(case, beams, field_dose)


def make_physics(path: Path, beams: Beams, out: Path) -> str:
    """Write the maps of one case of a folder, and return their SHA256.

    Raises
    ------
    BadCase
        If it has no target, or one that no field reaches.
    """
    case = Case.load(path)
    maps_gy = _of_fields(case, beams, physics_maps)
    write_physics(out, maps_gy, case_sha256=sha256_of_file(path), beams=beams)
    return sha256_of_file(out)


def _of_fields(case: Case, beams: Beams, make: Callable[[FieldCase, Beams], Made]) -> Made:
    """What is made of a case's fields; of one that can't be the case is named."""
    try:
        return make(field_case(case), beams)
    except BadInput as error:
        raise BadCase(case.case_id, str(error)) from error


def with_physics(file: CaseFile, beams: Mapping[str, Any] | None, folder: Path) -> CaseFile:
    """Return a case's file with its maps, made into a folder; as it is where a model asks for none.

    Parameters
    ----------
    beams
        What the model's maps were made of, as its checkpoint holds it.

    Raises
    ------
    BadCase
        As `make_physics`.
    """
    if beams is None:
        return file
    # A folder of its own: the case itself may lie there under the same name.
    made = folder / "physics" / file.path.name
    make_physics(file.path, load_block(Beams, beams, f"{file.case_id}: beams of the model"), made)
    return replace(file, physics=made)


def projected(predictor: Predictor) -> Predictor:
    """Return a model that tells the nearest dose that its beams can give, where its settings ask to `project`.

    What it would have told otherwise lies `undeliverable_gy` away: the mean over the voxels where a dose is defined,
    kept beside the dose. Near 0 a machine can give what was told.

    Raises
    ------
    BadInput
        If the model knows no beams: it was trained without physics maps.
    """
    if not predictor.settings.get("project"):
        return predictor
    if predictor.checkpoint.beams is None:
        raise BadInput(
            f"{predictor.checkpoint.model}: predict.project is on, but the model was trained without physics maps and "
            "knows no beams; name maps in inputs.physics, or set project to false"
        )
    beams = load_block(Beams, predictor.checkpoint.beams, f"beams of {predictor.checkpoint.model}")

    def predict(case: OpenCase) -> Arrays:
        arrays, whole = predictor.predict(case), Case.mapped(case.file.path)
        defined = defined_voxels(case)
        told_gy = arrays["dose_gy"]
        nearest_gy = np.where(defined, nearest_dose(fields_of(whole, beams), told_gy), np.float32(0.0))
        apart_gy = float(np.abs(nearest_gy - told_gy)[defined].mean(dtype=np.float64))
        return {**arrays, "dose_gy": nearest_gy, "undeliverable_gy": np.asarray(apart_gy)}

    return replace(predictor, predict=predict)


def make_cohort_physics(cases: Path, beams: Beams | None, out: Path, *, scale: Scale, tell: Tell) -> pd.DataFrame:
    """Return the table of all cases' maps, after making those that are not there yet.

    Parameters
    ----------
    cases
        Folder of `<case>.npz`.
    beams
        The protocol's; without them there are no maps, and the table is empty.
    out
        Gets `<case>.npz`, the table `physics.csv`, and `keys.json`: of which case, code and beams each was made.
    """
    out.mkdir(parents=True, exist_ok=True)
    known: dict[str, Any] = read_json(out / KEYS) if (out / KEYS).is_file() else {}
    made_of = [code_digest(MAPS), beams and beams.model_dump(mode="json")]
    paths = sorted(cases.glob("*.npz")) if beams is not None else []
    digests = {path.stem: known_sha256(path) for path in paths}
    keys = {name: sha256_of_json([digest, *made_of]) for name, digest in digests.items()}
    made = {name: _standing(out / f"{name}.npz", known.get(name), key) for name, key in keys.items()}
    wanted = {path.stem: (path, beams, out / path.name) for path in paths if not made[path.stem]}
    outcome = over_cases(make_physics, wanted, scale, tell=tell)
    made |= outcome.done
    reasons = {name: error.reason for name, error in outcome.failed.items()}
    for path in out.glob("*.npz"):
        if path.stem not in keys or path.stem in reasons:
            path.unlink()
    rows = [
        {
            "case_id": name,
            "case_sha256": digest,
            "sha256": made[name],
            "reason": reasons.get(name, ""),
        }
        for name, digest in digests.items()
    ]
    table = pd.DataFrame(rows, columns=list(PHYSICS.columns))
    write_json(out / KEYS, {row["case_id"]: [keys[row["case_id"]], row["sha256"]] for row in rows if row["sha256"]})
    write_table(out / TABLE, table, PHYSICS)
    return table


def _standing(path: Path, known: list[str] | None, key: str) -> str:
    """SHA256 of a case's maps that are there as they were made, of the same case, code and beams; else empty."""
    if known is None or known[0] != key or not path.is_file() or sha256_of_file(path) != known[1]:
        return ""
    return known[1]

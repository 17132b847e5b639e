"""Order of lists that means nothing: a DICOM patient whose sequences and files are turned is the same case."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest

from doseledger.core.case import Case
from doseledger.core.project.protocol import Protocol
from doseledger.core.settings import load_settings
from doseledger.core.tables import TEST_SET
from doseledger.ingest.patient.case import Origin, convert_case
from doseledger.ingest.splits import deal

# What is delivered one after the other.
IN_TIME = ("ControlPointSequence",)


def two_beams(factory: ModuleType) -> Any:
    """A patient with two beams, three dose references and fifteen contours."""
    patient = factory.make_patient()
    plan = patient.rtplan
    second = copy.deepcopy(plan.BeamSequence[0])
    second.BeamNumber, second.BeamName = 7, "PA"
    second.ControlPointSequence[0].GantryAngle = 190.0
    plan.BeamSequence.append(second)
    used = copy.deepcopy(plan.FractionGroupSequence[0].ReferencedBeamSequence[0])
    used.ReferencedBeamNumber, used.BeamMeterset = 7, 120.0
    plan.FractionGroupSequence[0].ReferencedBeamSequence.append(used)
    plan.FractionGroupSequence[0].NumberOfBeams = 2
    return patient


def sequences(dataset: pydicom.Dataset, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Ways to each sequence of two items and more, at any depth."""
    for element in dataset:
        if element.VR == "SQ":
            if len(element.value) > 1 and element.keyword not in IN_TIME:
                yield (*above, element.keyword)
            for index, item in enumerate(element.value):
                yield from sequences(item, (*above, element.keyword, index))


def turned(dataset: pydicom.Dataset, way: tuple[Any, ...]) -> None:
    holder: Any = dataset
    for step in way[:-1]:
        holder = holder[step].value if isinstance(step, str) else holder[step]
    holder[way[-1]].value = list(holder[way[-1]].value)[::-1]


@pytest.fixture(scope="module")
def plain(factory: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return convert(two_beams(factory), factory, tmp_path_factory.mktemp("plain"))


def convert(patient: Any, factory: ModuleType, folder: Path) -> Case:
    protocol = Protocol.model_validate(factory.PROTOCOL)
    return convert_case(patient.save(folder / "raw"), Origin("anon_1"), protocol)


def assert_same(one: Case, other: Case) -> None:
    for field in fields(Case):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if isinstance(first, np.ndarray):
            np.testing.assert_array_equal(first, second, err_msg=field.name)
        elif field.name != "meta":
            assert first == second, field.name
    for key in one.meta:
        if key != "source_sha256":
            assert one.meta[key] == other.meta[key], key


@pytest.mark.parametrize("kind", ["rtstruct", "rtplan", "rtdose"])
def test_every_sequence_that_is_turned_at_once_gives_the_same_case(
    kind: str, plain: Case, factory: ModuleType, tmp_path: Path
) -> None:
    patient = two_beams(factory)
    ways = sorted(sequences(getattr(patient, kind)), key=len, reverse=True)
    assert ways or kind == "rtdose"
    for way in ways:
        turned(getattr(patient, kind), way)
    assert_same(convert(patient, factory, tmp_path), plain)


def test_each_sequence_of_a_plan_that_is_turned_alone_gives_the_same_plan(
    plain: Case, factory: ModuleType, tmp_path: Path
) -> None:
    ways = list(sequences(two_beams(factory).rtplan))
    assert len(ways) == 7, ways
    for index, way in enumerate(ways):
        patient = two_beams(factory)
        turned(patient.rtplan, way)
        assert convert(patient, factory, tmp_path / str(index)).meta["plan"] == plain.meta["plan"], way


def test_files_of_any_name_and_order_give_the_same_case(plain: Case, factory: ModuleType, tmp_path: Path) -> None:
    folder = two_beams(factory).save(tmp_path / "raw")
    for index, path in enumerate(sorted(folder.iterdir(), reverse=True)):
        path.rename(folder / f"{index:03d}.dcm")
    protocol = Protocol.model_validate(factory.PROTOCOL)
    assert_same(convert_case(folder, Origin("anon_1"), protocol), plain)


def test_structures_in_another_order_of_the_protocol_are_the_same_structures(
    plain: Case, factory: ModuleType, tmp_path: Path
) -> None:
    block = {**factory.PROTOCOL, "structures": factory.PROTOCOL["structures"][::-1],
             "prescription_gy": dict(reversed(factory.PROTOCOL["prescription_gy"].items()))}  # fmt: skip
    patient = two_beams(factory).save(tmp_path / "raw")
    case = convert_case(patient, Origin("anon_1"), Protocol.model_validate(block))
    assert case.structure_names == plain.structure_names[::-1]
    assert case.prescription_gy == plain.prescription_gy
    assert case.present_names == plain.present_names[::-1]
    for name in plain.structure_names:
        here, there = case.structure_names.index(name), plain.structure_names.index(name)
        np.testing.assert_array_equal(case.mask(name), plain.mask(name))
        np.testing.assert_array_equal(case.sdf_mm[here], plain.sdf_mm[there])
    np.testing.assert_array_equal(case.dose_gy, plain.dose_gy)
    assert case.meta["parity"] == plain.meta["parity"]


@pytest.mark.parametrize("kind", ["fractions", "folds", "leave_one_group_out"])
def test_rows_of_cases_in_another_order_are_dealt_alike(kind: str, repository: Path) -> None:
    settings = load_settings(repository / "params.yaml").splits.model_copy(update={"kind": kind})
    rows = pd.DataFrame({
        "case_id": [f"case_{n:03d}" for n in range(40)],
        "pseudonym": [f"anon_{n // 2}" for n in range(40)],
        "group": [f"g{n // 8}" for n in range(40)],
        "site": "",
        "source_sha256": [f"{n:064x}" for n in range(40)],
        "sha256": [f"{n:064x}" for n in range(40)],
    })  # fmt: skip
    locked = pd.DataFrame(columns=list(TEST_SET.columns))
    by_case = [
        deal(frame.reset_index(drop=True), settings, locked)
        .sort_values(["repeat", "fold", "case_id"])
        .reset_index(drop=True)
        for frame in (rows, rows.iloc[::-1], rows.sample(frac=1.0, random_state=3))
    ]
    pd.testing.assert_frame_equal(by_case[0], by_case[1])
    pd.testing.assert_frame_equal(by_case[0], by_case[2])

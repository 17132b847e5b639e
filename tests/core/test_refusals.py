"""Refusals of the nouns: what was found, what was wanted."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml, write_json
from doseledger.core.grid import box_around
from doseledger.core.npz import array_heads
from doseledger.core.project.protocol import Protocol, load_protocol
from doseledger.core.tables import check_table


@pytest.fixture
def protocol(repository: Path) -> Protocol:
    return load_protocol(repository / "validation/cohorts/prostate/protocol.yaml")


def test_a_case_names_the_structures_that_it_knows(make_case: Callable[..., Case]) -> None:
    with pytest.raises(BadInput, match="case_0001: no structure Liver; there are PTV70, PTV56, Prostate"):
        make_case().mask("Liver")


def test_a_protocol_names_the_structures_that_it_has(protocol: Protocol) -> None:
    with pytest.raises(BadInput, match=r"has no structure Liver; it has .*Rectum"):
        protocol.structure("Liver")


def test_an_empty_mask_has_no_box() -> None:
    with pytest.raises(BadInput, match="an empty mask has no box"):
        box_around(np.zeros((2, 3, 4), np.bool_), (1, 1, 1))


@pytest.mark.parametrize(("n", "n_told", "more"), [(10, 10, ""), (11, 10, "; and 1 more"), (13, 10, "; and 3 more")])
def test_ten_faults_of_a_table_are_told_and_the_others_counted(n: int, n_told: int, more: str) -> None:
    schema = pa.DataFrameSchema({"dose_gy": pa.Column(float, pa.Check.ge(0.0))}, name="doses")
    with pytest.raises(BadInput) as told:
        check_table(pd.DataFrame({"dose_gy": [-1.0 - i for i in range(n)]}), schema, "doses.csv")
    text = str(told.value)
    assert text.startswith("doses.csv: not a doses table: dose_gy: ")
    assert "found -1.0 in row 0" in text
    assert text.count(" in row ") == n_told
    assert text.endswith(more or f"in row {n - 1}")


@pytest.mark.parametrize(("change", "message"), [
    ({"prescription_gy": {}}, "a protocol with rtdose needs prescription_gy"),
    ({"prescription_gy": {"Liver": 50.0}}, "Liver named, but not among the structures"),
])  # fmt: skip
def test_a_protocol_that_contradicts_itself_is_refused(
    change: dict[str, Any], message: str, repository: Path, tmp_path: Path
) -> None:
    value = read_yaml(repository / "validation/cohorts/prostate/protocol.yaml")
    write_json(tmp_path / "protocol.yaml", {**value, **change})
    with pytest.raises(BadInput, match=message):
        load_protocol(tmp_path / "protocol.yaml")


def test_an_npz_that_holds_a_name_twice_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.zeros(3))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("dose_gy.npy", stream.getvalue())
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("dose_gy.npy", stream.getvalue())
    with pytest.raises(BadInput, match="dose_gy is there twice; write the file again"):
        array_heads(tmp_path / "a.npz")


@pytest.mark.parametrize(("name", "message"), [
    ("dose_gy.txt", "'dose_gy.txt' is no array"), (".npy", "'.npy' is no array"),
])  # fmt: skip
def test_an_npz_that_holds_what_is_no_array_is_refused(name: str, message: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(BadInput, match=message):
        array_heads(tmp_path / "a.npz")


def test_the_heads_of_an_npz_say_what_its_arrays_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", b=np.zeros((2, 3), np.int16), a=np.asfortranarray(np.zeros((2, 3))), c=np.asarray("x"))
    heads = array_heads(tmp_path / "a.npz")
    assert [(h.name, str(h.dtype), h.shape, h.fortran, h.n_bytes) for h in heads.values()] == [
        ("b", "int16", (2, 3), False, 12), ("a", "float64", (2, 3), True, 48), ("c", "<U1", (), False, 4),
    ]  # fmt: skip
    for odd in (np.zeros(2, [("x", "f4")]), np.array([1, "a"], object)):
        np.savez(tmp_path / "b.npz", odd=odd)
        with pytest.raises(BadInput, match=r"odd (is an array of objects|holds)"):
            array_heads(tmp_path / "b.npz")

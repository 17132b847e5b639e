from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from doseledger.core import tables
from doseledger.core.errors import BadInput
from doseledger.core.files import (
    atomic_path,
    read_json,
    read_mapping,
    read_yaml,
    sha256_of_bytes,
    sha256_of_file,
    write_json,
)
from doseledger.core.pool.fanout import take_shard

DIGEST = sha256_of_bytes(b"")


def fail() -> None:
    raise OSError("disk full")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"a": 1})
    with pytest.raises(OSError, match="disk full"), atomic_path(target) as part:
        part.write_text("half") and fail()
    assert read_json(target) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_replacing_a_hard_link_leaves_the_other_name_alone(tmp_path: Path) -> None:
    write_json(tmp_path / "cache.json", {"a": 1})
    os.link(tmp_path / "cache.json", tmp_path / "out.json")
    write_json(tmp_path / "out.json", {"a": 2})
    assert read_json(tmp_path / "cache.json") == {"a": 1}


def test_nan_becomes_null_and_numpy_becomes_plain(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": np.float32(1.5), "y": float("nan"), "z": [np.int64(2), np.inf]})
    assert read_json(tmp_path / "a.json") == {"x": 1.5, "y": None, "z": [2, None]}


def test_a_known_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_yaml_reads_1e_05_as_a_number(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("lr: 1e-05\n")
    assert read_yaml(tmp_path / "a.yaml") == {"lr": 1e-05}


@pytest.mark.parametrize(("name", "text"), [("a.json", "{"), ("a.yaml", "a: [1")])
def test_a_broken_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=rf"{name}: not valid"):
        (read_json if name.endswith("json") else read_yaml)(tmp_path / name)


def skipped(**changes: list) -> pd.DataFrame:
    columns = {"case_id": ["case_1"], "status": ["failed"], "reason": ["no CT"]}
    return pd.DataFrame({**columns, **changes})


def test_a_table_comes_back_with_its_types(tmp_path: Path) -> None:
    row = {"repeat": 0, "fold": 1, "case_id": "001", "pseudonym": "p", "group": "", "split": "test", "sha256": DIGEST}
    rows = pd.DataFrame([row])
    tables.write_table(tmp_path / "s.csv", rows, tables.SPLITS)
    back = tables.read_table(tmp_path / "s.csv", tables.SPLITS)
    assert back.loc[0, "case_id"] == "001", "an id of digits must stay a string"
    assert back["fold"].dtype.kind == "i"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (skipped(status=["lost"]), "status: isin.*found 'lost' in row 0"),
        (skipped(case_id=["../x"]), "letters, digits"),
        (skipped(other=["x"]), "column_in_schema.*other"),
        (skipped().drop(columns="reason"), "column_in_dataframe.*reason"),
        (pd.concat([skipped(), skipped()], ignore_index=True), "multiple_fields_uniqueness.*case_1"),
    ],
)
def test_a_table_of_another_form_is_refused(table: pd.DataFrame, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        tables.check_table(table, tables.SKIPPED, "skipped.csv")


def test_an_absent_table_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="run the stage that writes it"):
        tables.read_table(tmp_path / "none.csv", tables.SKIPPED)


def test_shards_deal_every_case_once() -> None:
    ids = [f"c{i}" for i in range(7)]
    assert sorted(take_shard(ids, "1/3") + take_shard(ids, "2/3") + take_shard(ids, "3/3")) == ids
    assert take_shard(ids, None) == ids
    for bad in ("0/3", "4/3", "x", "1/", "1"):
        with pytest.raises(BadInput, match="wanted i/n"):
            take_shard(ids, bad)


@pytest.mark.parametrize("content", ["[1]", "7", "null", '"text"'])
def test_a_json_file_that_holds_no_mapping_is_refused_by_name(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert read_mapping(tmp_path / "a.json") == {"a": 1}
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(BadInput, match=r"a\.json: wanted a mapping, found (list|int|NoneType|str)"):
        read_mapping(tmp_path / "a.json")

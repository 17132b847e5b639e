"""Files that are damaged, nested without end or larger than they say: one sentence each, never a crash or a hang."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doseledger.core.case import Case, map_member, read_meta, write_npz
from doseledger.core.damage import MOST_SHOWN, check_zip, describe, refuse_bomb
from doseledger.core.errors import MOST_CHARACTERS, BadCase, BadInput
from doseledger.core.files import read_json, read_yaml
from doseledger.core.grid import Grid
from doseledger.core.npz import open_npz
from doseledger.core.schema import Block, load_block
from doseledger.core.tables import CASES, read_frame, read_table
from doseledger.dicom.files.members import read_members
from doseledger.evaluate.predictions import load_prediction, read_seen
from doseledger.gates.drift.stacks import read_stack
from doseledger.gates.model import training
from doseledger.ledger.runs.listing.rows import _checkpoint
from doseledger.ledger.runs.training_check import read_history
from doseledger.report.model.spread import load_spread

LATIN = "größe: 3\n".encode("latin-1")


class Names(Block):
    """A block whose field wants a list of names."""

    names: list[str]


@pytest.mark.parametrize("content", [LATIN, b"[" * 100_000, b"{", b"\0\0", b""], ids=repr)
def test_json_that_is_none_is_one_sentence_with_the_files_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"a\.json: not valid JSON \("):
        read_json(path)
    with pytest.raises(BadInput, match="not valid JSON"):
        read_json(tmp_path)


@pytest.mark.parametrize(
    "content", [LATIN, b"[" * 5000, b"a: 2024-99-99", b"a: [", b"\0\0", b"? {a: b}\n: c"], ids=lambda c: repr(c[:14])
)
def test_yaml_that_is_none_is_one_sentence_with_the_files_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"a\.yaml: not valid YAML"):
        read_yaml(path)
    with pytest.raises(BadInput, match="not valid YAML"):
        read_yaml(tmp_path)


def laughs(levels: int) -> str:
    lines = ["l0: &l0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"l{k}: &l{k} [{', '.join([f'*l{k - 1}'] * 10)}]" for k in range(1, levels)]
    return "\n".join(lines)


def test_aliases_that_stand_for_a_million_values_are_refused_and_a_few_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(laughs(9))
    with pytest.raises(BadInput, match=r"a\.yaml: .* aliases stand for more than 1000000 values"):
        read_yaml(path)
    path.write_text("a: &a [*a, 1]\n")
    with pytest.raises(BadInput, match="or for themselves"):
        read_yaml(path)
    path.write_text(laughs(3))
    assert read_yaml(path)["l2"][9][9][9] == "ha"


def test_a_wrong_value_that_is_nested_without_end_is_shown_cut_short() -> None:
    value: Any = "ha"
    for _ in range(60):
        value = [value] * 10
    with pytest.raises(BadInput, match="names") as refused:
        load_block(Names, {"names": value}, "a.yaml")
    assert len(str(refused.value)) < 10_000


@pytest.mark.parametrize("content", [LATIN, b"", b'"a,b\n"c', b"\0\0\0", b"a\n1,2\n1,2,3,4\n"], ids=repr)
def test_a_table_that_is_none_is_one_sentence_with_the_files_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"cases\.csv: not a "):
        read_table(path, CASES)
    with pytest.raises(BadInput, match="not a CSV table"):
        read_table(tmp_path, CASES)


def test_a_cell_of_any_length_is_shown_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text(f"case_id\n{'/' * 60_000}\n")
    with pytest.raises(BadInput, match="not a cases table") as refused:
        read_table(path, CASES)
    assert len(str(refused.value)) < 10_000


@pytest.mark.parametrize("content", [LATIN, b"", b"a\n1,2\n1,2,3,4\n", b'a,b\n"1,2'], ids=repr)
@pytest.mark.parametrize("read", [read_frame, training.read_history, read_history], ids=lambda read: read.__name__)
def test_every_reader_of_a_table_of_any_columns_names_the_file(read: Any, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"history\.csv: "):
        read(path)
    with pytest.raises(BadInput, match=r"not a CSV table|no history"):
        read(tmp_path)


def test_what_parses_yaml_or_a_table_stands_in_one_place_each(repository: Path) -> None:
    # A reader with a list of errors of its own lets the others out.
    source = repository / "src/doseledger"
    texts = {path.relative_to(source).as_posix(): path.read_text() for path in source.rglob("*.py")}
    own = {name for name, text in texts.items() if "pd.read_csv(" in text}
    assert own == {"core/tables.py", "ingest/openkbp/files.py"}
    own = {name for name, text in texts.items() if re.search(r'YAML\(typ="safe", pure=True\)\.load', text)}
    assert own == {"core/files.py"}
    partly = {name for name, text in texts.items() if re.search(r"except \(?[^)\n]*(pd\.errors|JSONDecodeError)", text)}
    assert not partly


def test_a_table_of_cases_with_a_cell_beyond_any_limit_names_no_checkpoint(tmp_path: Path) -> None:
    assert _checkpoint(b"case_id,checkpoint_sha256\n" + b"x" * 200_000 + b",a\n") == ""
    assert _checkpoint(b"case_id,checkpoint_sha256\nc1,abc\n") == "abc"


READERS = (
    (Case.load, BadCase),
    (read_meta, BadCase),
    (lambda path: map_member(path, "ct_hu"), BadCase),
    (load_prediction, BadCase),
    (read_seen, BadCase),
    (lambda path: load_spread(path, (1, 1, 1)), BadCase),
)


def a_member(name: str, content: bytes, path: Path, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{name}.npy", content)


def a_lying_head() -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"shape": (10**13,), "fortran_order": False, "descr": "<f8"})
    return out.getvalue() + bytes(16)


@pytest.mark.parametrize("name", ["ct_hu", "meta", "format_version", "dose_gy"])
def test_a_head_that_asks_for_more_than_is_there_gets_no_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / "case_0001.npz"
    a_member(name, a_lying_head(), path)
    for read, error in READERS:
        with pytest.raises(error, match=r"which is 80000000000000 bytes|no key|does not fit its bytes"):
            read(path)


def test_an_archive_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "case_0001.npz"
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"shape": (1 << 29,), "fortran_order": False, "descr": "|u1"})
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("ct_hu.npy", "w", force_zip64=True) as member,
    ):
        member.write(head.getvalue())
        for _ in range(512):
            member.write(bytes(1 << 20))
    with pytest.raises(BadInput, match=r"would unpack to .* more than 100 times"), open_npz(path):
        pass
    with pytest.raises(BadCase, match="would unpack to"):
        Case.load(path)


@pytest.mark.parametrize("meta", ["[" * 5000, "[]", "3", '{"case": 1}', "null"], ids=lambda text: text[:9])
def test_meta_that_names_no_case_is_a_bad_case(meta: str, tmp_path: Path, make_case) -> None:
    path = tmp_path / "case_0001.npz"
    make_case().save(path)
    with np.load(path) as npz:
        arrays = {key: npz[key] for key in npz.files}
    write_npz(path, {**arrays, "meta": np.asarray(meta)})
    for read in (Case.load, read_meta):
        with pytest.raises(BadCase, match=r"case_0001: .*(meta names no case_id|can't be read)"):
            read(path)


def test_arrays_of_another_rank_are_a_bad_case(tmp_path: Path, make_case) -> None:
    path = tmp_path / "case_0001.npz"
    make_case().save(path)
    with np.load(path) as npz:
        arrays = {key: npz[key] for key in npz.files}
    for name, value in {"spacing_mm": 1.0, "format_version": [1, 1], "ct_hu": 3, "crop_start_zyx": [1]}.items():
        write_npz(path, {**arrays, name: np.asarray(value)})
        with pytest.raises(BadCase, match="case_0001: "):
            Case.load(path)


def test_every_byte_of_a_small_case_may_be_wrong(tmp_path: Path, make_case) -> None:
    path = tmp_path / "case_0001.npz"
    make_case().save(path)
    whole, rng = path.read_bytes(), np.random.default_rng(11)
    # The central directory and the local headers are where a flipped byte sends a reader astray.
    places = [*range(len(whole) - 1400, len(whole), 7), *rng.integers(0, 4000, 200).tolist()]
    for place in places:
        content = bytearray(whole)
        content[place] ^= int(rng.integers(1, 256))
        path.write_bytes(content)
        for read, _ in READERS[:3]:
            try:
                read(path)
            except BadCase:
                continue


def test_what_grows_a_hundredfold_is_let_through_while_it_is_small() -> None:
    refuse_bomb(1 << 28, 1, "a.zip")
    refuse_bomb(100 << 28, 1 << 28, "a.zip")
    with pytest.raises(BadInput, match=r"a\.zip: 1 bytes would unpack to 268435457"):
        refuse_bomb((1 << 28) + 1, 1, "a.zip")


def test_a_grid_beyond_any_patient_is_refused_before_it_is_filled() -> None:
    Grid((512, 1024, 1024), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    with pytest.raises(BadInput, match="larger than any patient's"):
        Grid((513, 1024, 1024), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    with pytest.raises(BadInput, match="larger than any patient's"):
        Grid((20, 50, 60), (3e6, 2.5, 2.5), (0.0, 0.0, 0.0)).resampled((3.0, 2.5, 2.5))


def test_an_errors_text_is_one_line_of_bounded_length() -> None:
    assert describe(ValueError("a\n  b")) == "a b"
    assert describe(KeyError("x")) == "no 'x'"
    assert describe(EOFError()) == "EOFError"
    assert len(describe(ValueError("x" * 5000))) == MOST_SHOWN + 1


def test_a_single_file_is_named_once() -> None:
    told = {str(BadCase(name, reason)) for name in ("rd.dcm", "rd") for reason in ("rd.dcm: Rows is missing",)}
    assert told == {"rd.dcm: Rows is missing"}
    assert str(BadCase("case_1", "case_1.npz is another")) == "case_1: case_1.npz is another"
    assert str(BadCase("case_1", "case_10.npz: no dose")) == "case_1: case_10.npz: no dose"
    assert BadCase("rd", "rd.dcm: Rows is missing").reason == "rd.dcm: Rows is missing"


def test_a_message_without_end_is_cut() -> None:
    endless = "9" * 1_000_000
    for error in (BadInput(endless), BadCase("case_1", endless)):
        assert len(str(error)) == MOST_CHARACTERS + 1
        assert str(error).endswith("9…")
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(BadInput("as it is")) == "as it is"


def zipped(path: Path, n: int, method: int, *, streamed: bool) -> Path:
    """A zip of so many members; a stream that can't go back has a descriptor after each."""
    whole = io.BytesIO()
    if streamed:
        whole.seekable = lambda: False  # type: ignore[method-assign]
    with zipfile.ZipFile(whole, "w", method) as archive:
        for number in range(n):
            with archive.open(f"{number}.dcm", "w", force_zip64=number % 2 == 0) as member:
                member.write(bytes([number]) * 300)
    path.write_bytes(whole.getvalue())
    return path


def without_its_last(content: bytes) -> bytes:
    """A zip in whose list the comment of the last member but one, by one byte, is as long as the last one's entry."""
    last = content.rindex(b"PK\1\2")
    before = content.rindex(b"PK\1\2", 0, last)
    length = content.rindex(b"PK\5\6") - last
    return content[: before + 32] + length.to_bytes(2, "little") + content[before + 34 :]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_zip_whose_list_leaves_out_a_member_is_refused(method: int, streamed: bool, tmp_path: Path) -> None:
    path = zipped(tmp_path / "case_1.zip", 4, method, streamed=streamed)
    assert len(list(read_members(path))) == 4
    path.write_bytes(without_its_last(path.read_bytes()))
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["0.dcm", "1.dcm", "2.dcm"]
        with pytest.raises(BadInput, match=r"a\.zip: its list of members leaves out \d+ bytes that it holds"):
            check_zip(archive, "a.zip")
    with pytest.raises(BadCase, match=r"case_1\.zip: its list of members leaves out"):
        list(read_members(path))


def test_a_zip_without_members_or_behind_other_bytes_is_whole(tmp_path: Path) -> None:
    for n, before in ((0, b""), (3, b"#!/bin/sh\n")):
        path = zipped(tmp_path / f"{n}.zip", n, zipfile.ZIP_STORED, streamed=False)
        path.write_bytes(before + path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            check_zip(archive, path.name)


def test_an_array_that_may_be_absent_is_not_lost_unseen(tmp_path: Path) -> None:
    path = tmp_path / "stack.npz"
    write_npz(path, {"images": np.ones((4, 3, 3)), "labels": np.arange(4) % 2, "groups": np.arange(4)})
    assert read_stack(path).groups is not None
    path.write_bytes(without_its_last(path.read_bytes()))
    with pytest.raises(BadInput, match=r"stack\.npz: its list of members leaves out"):
        read_stack(path)

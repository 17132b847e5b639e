"""An entry in words, and what a log is told to be, line by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from doseledger.ledger.audit.check import Anchor, AuditCheck, AuditFinding, verify
from doseledger.ledger.audit.log import (
    NO_ENTRY,
    AuditHead,
    append_entry,
    describe_torn,
    hash_of,
    read_entries,
    serialise,
)
from doseledger.ledger.audit.view import Filter, describe_entry, matches

ENTRY: dict[str, Any] = {
    "n": 12, "at": "2026-03-01T10:11:12.345+00:00", "who": {"name": "Ada", "email": "ada@x.org"}, "command": "train",
    "event": "ended", "status": "failed",
    "seconds": 3.5, "error": "x" * 250 + "\nmore", "inputs": {"splits": {"path": "s.csv", "sha256": "a" * 64},
        "gone": {"path": "g", "sha256": None}},
    "outputs": {"run": {"path": "models/m", "sha256": "b" * 64}}, "reads": "train and val",
    "verdicts": [{"token": "t.json", "ok": True, "digest": "c" * 64}, {"token": "u.json", "ok": False, "digest": ""}],
    "registered": {"b": 1, "a": "ü"}, "signed_off": {"x": 2}, "retired": None, "other": "fact",
}  # fmt: skip


def test_an_entry_is_a_line_and_one_for_each_file_verdict_and_fact() -> None:
    assert describe_entry(ENTRY).splitlines() == [
        "   12 2026-03-01T10:11:12 Ada <ada@x.org>: train ended: failed after 3.5 s",
        "      " + "x" * 200,
        "      read s.csv aaaaaaaaaaaa",
        "      read g absent",
        "      wrote models/m bbbbbbbbbbbb",
        "      opened cases: train and val",
        "      t.json: passed, digest cccccccccccc",
        "      u.json: failed, digest absent",
        '      registered {"a": "ü", "b": 1}',
        "      retired null",
        '      signed_off {"x": 2}',
    ]
    assert describe_entry({"n": 1}) == "    1  unknown: "
    assert describe_entry({"n": 1, "who": {"name": "Ada", "email": ""}, "event": "began"}) == "    1  Ada: began"
    assert describe_entry({"n": 1, "who": {"email": "a@b"}, "command": "x"}) == "    1  <a@b>: x"


@pytest.mark.parametrize(("wanted", "found"), [
    ({}, True), ({"command": "train"}, True), ({"command": "trai"}, False), ({"who": "ADA"}, True), ({"who": "x.org"},
        True), ({"who": "Bo"}, False),
    ({"since": "2026-03-01"}, True), ({"since": "2026-03-02"}, False), ({"until": "2026-03-01"}, True),
    ({"until": "2026-02-28"}, False),
    ({"status": "failed"}, True), ({"status": "done"}, False), ({"about": "ü"}, True), ({"about": "models/m"}, True),
    ({"about": "zzz"}, False),
    ({"command": "train", "status": "done"}, False), ({"who": "Ada <"}, False), ({"who": "Ada ada"}, True),
])  # fmt: skip
def test_each_filter_asks_for_one_thing_and_all_must_hold(wanted: dict[str, str], found: bool) -> None:
    assert matches(ENTRY, Filter(**wanted)) is found
    assert matches({}, Filter(**wanted)) is (not wanted or wanted.keys() == {"until"})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of three entries, with a line cut short above the third."""
    path = tmp_path / "deep" / "log.jsonl"
    append_entry(path, {"command": "a"})
    append_entry(path, {"command": "b"})
    with path.open("ab") as stream:
        stream.write(b'{"half')
    append_entry(path, {"command": "c"})
    return path


def entries(log: Path) -> list[dict[str, Any]]:
    return list(read_entries(log))


def test_a_log_and_its_anchors_are_told_exactly(log: Path) -> None:
    first, second, third = entries(log)
    assert [first["n"], second["n"], third["n"]] == [1, 2, 3]
    assert (first["previous"], second["previous"], third["previous"]) == (NO_ENTRY, first["sha256"], second["sha256"])
    assert third["torn"] == [describe_torn(b'{"half')]
    head = AuditHead(3, third["sha256"])
    note = AuditFinding(3, "6 bytes: cut short when a writer was stopped, and named by entry 3")
    assert verify(log, []) == AuditCheck(head, (), (note,), 0, 0)
    anchors = [
        Anchor("tag a", AuditHead(2, second["sha256"]), first["sha256"]), Anchor("outside", AuditHead(1,
            first["sha256"]), "", is_outside=True),
        Anchor("nothing", AuditHead(0, NO_ENTRY)), Anchor("wrong", AuditHead(2, "0" * 64), "other"), Anchor("longer",
            AuditHead(4, "1" * 64), first["sha256"]),
    ]  # fmt: skip
    found = verify(log, anchors, given=["f" * 64])
    assert (found.head, found.notes, found.anchored, found.outside, found.ok) == (head, (note,), 2, 1, False)
    assert [(one.line, one.message) for one in found.findings] == [
        (0, "entry 2 is not the one that wrong saw: it, or one before it, was changed (it names the log other)"),
        (0, "longer saw 4 entries, here are 3: the log was cut off or replaced"),
        (0, f"no entry is the head {'f' * 64} that was given from outside: the log was cut off or written anew"),
    ]
    assert verify(log, [], given=[third["sha256"], first["sha256"]]) == AuditCheck(head, (), (note,), 3, 3)


def test_each_line_that_was_touched_is_told_with_its_number(log: Path) -> None:
    lines = log.read_bytes().split(b"\n")
    edited = {**json.loads(lines[1]), "command": "x"}
    log.write_bytes(b"\n".join([lines[0], serialise(edited), lines[3], b"[1]"]))
    found = verify(log, [])
    assert [(one.line, one.message) for one in found.findings] == [
        (2, "entry 2 was edited: its content does not give its SHA256"),
        (3, "entry 3 names 1 line(s) cut short above it, which are gone"),
    ]
    assert found.notes == (
        AuditFinding(4, "3 bytes are no entry: a writer was stopped in the midst; the next entry will name them"),
    )
    assert found.head == AuditHead(3, hash_of(json.loads(lines[3])))
    log.write_bytes(b"\n".join([lines[1], b"slipped in", lines[0], b""]))
    assert [(one.line, one.message) for one in verify(log, []).findings] == [
        (1, "entry 2 does not follow on entry 0 above it: entries were removed, added, edited or put in another order"),
        (3, "entry 1 does not follow on entry 1 above it: entries were removed, added, edited or put in another order"),
        (2, "no entry, and not as entry 1 below names what a killed writer left"),
    ]


def test_what_was_left_over_at_the_end_is_named_by_the_next_entry_alone(log: Path) -> None:
    with log.open("ab") as stream:
        stream.write(b"one\ntwo")
    head = append_entry(log, {"command": "d"})
    last = entries(log)[-1]
    assert (head, last["torn"]) == (AuditHead(4, last["sha256"]), [describe_torn(b"one"), describe_torn(b"two")])
    assert verify(log, []).ok

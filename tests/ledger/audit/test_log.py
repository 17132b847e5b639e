"""The audit log: what a forger, a killed writer and two writers at once do to it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doseledger.core.errors import BadInput
from doseledger.ledger.audit import log as audit
from doseledger.ledger.audit.anchors import read_given
from doseledger.ledger.audit.check import Anchor, verify
from doseledger.ledger.audit.log import NO_ENTRY, AuditHead, append_entry, read_entries, read_head


def write_log(log: Path, count: int) -> list[AuditHead]:
    return [append_entry(log, {"event": "began", "command": f"stage {i}"}) for i in range(1, count + 1)]


def messages(log: Path, *anchors: AuditHead) -> str:
    check = verify(log, [Anchor(f"tag v{number}", head) for number, head in enumerate(anchors, start=1)])
    return "\n".join(f"{finding.line}: {finding.message}" for finding in check.findings)


def edit_lines(log: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    log.write_bytes(b"".join(change(log.read_bytes().splitlines(keepends=True))))


def forge(log: Path, change: Callable[[list[dict]], list[dict]]) -> None:
    """Write all entries anew, with a whole chain of new hashes: what an attacker does who knows the form."""
    entries = change(list(read_entries(log)))
    previous = NO_ENTRY
    lines = []
    for number, entry in enumerate(entries, start=1):
        new = {**{key: value for key, value in entry.items() if key != "sha256"}, "n": number, "previous": previous}
        previous = audit.hash_of(new)
        lines.append(audit.serialise({**new, "sha256": previous}) + b"\n")
    log.write_bytes(b"".join(lines))


def test_a_log_written_anew_with_every_anchor_beside_it_is_found_by_a_head_from_outside(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    heads = write_log(log, 3)
    printed = heads[1].sha256
    forge(log, lambda entries: [{**entry, "command": "another"} for entry in entries])
    # Whoever forged the log made its anchors anew too: within the clone all agree.
    beside = [Anchor("tag v1", read_head(log))]
    assert verify(log, beside).ok
    assert (verify(log, beside).anchored, verify(log, beside).outside) == (3, 0)
    check = verify(log, beside, [printed])
    assert [finding.message for finding in check.findings] == [
        f"no entry is the head {printed} that was given from outside: the log was cut off or written anew"
    ]


def test_a_head_from_outside_vouches_for_what_came_before_it_and_no_more(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    heads = write_log(log, 3)
    assert verify(log, [], [heads[1].sha256]).outside == 2
    assert verify(log, [Anchor("page", heads[2], is_outside=True)], [heads[0].sha256]).outside == 3
    check = verify(log, [Anchor("tag", heads[2])], [heads[0].sha256])
    assert (check.ok, check.anchored, check.outside) == (True, 3, 1)


@pytest.mark.parametrize("text", ["", "ab" * 31, "g" * 64, "audit log: 3 entries"])
def test_what_is_no_head_is_refused_with_what_is_wanted(text: str) -> None:
    with pytest.raises(BadInput, match=r"is no head of an audit log; wanted its 64 hex digits, or the line"):
        read_given(text)


def test_where_there_is_no_log_the_head_is_nothing(tmp_path: Path) -> None:
    assert read_head(tmp_path / "audit.jsonl") == AuditHead(0, "0" * 64)
    assert verify(tmp_path / "audit.jsonl", []).ok


def test_a_log_of_three_entries_holds_and_its_head_is_the_last_ones(tmp_path: Path) -> None:
    log = tmp_path / "deep/audit.jsonl"
    heads = write_log(log, 3)
    assert read_head(log) == heads[-1] == verify(log, []).head
    assert [head.length for head in heads] == [1, 2, 3]
    assert [entry["command"] for entry in read_entries(log)] == ["stage 1", "stage 2", "stage 3"]
    assert messages(log, *heads) == ""


def test_the_hash_of_an_entry_is_that_of_its_canonical_json(tmp_path: Path) -> None:
    """A known answer, by the definition in docs/reference/audit.md and nothing of ours."""
    import hashlib

    log = tmp_path / "audit.jsonl"
    write_log(log, 2)
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    previous = "0" * 64
    for entry in entries:
        said = entry.pop("sha256")
        assert entry["previous"] == previous
        text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest() == said
        previous = said


def test_an_edited_line_is_found(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    write_log(log, 4)
    edit_lines(log, lambda lines: [line.replace(b"stage 2", b"stage 9") for line in lines])
    assert "2: entry 2 was edited" in messages(log)


def test_white_space_added_to_a_line_is_found(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    write_log(log, 2)
    edit_lines(log, lambda lines: [lines[0].replace(b'","', b'", "'), lines[1]])
    assert "1: entry 1 was edited" in messages(log)


@pytest.mark.parametrize("kept", [(0, 2, 3), (1, 2, 3), (0, 2, 1, 3), (0, 1, 1, 2, 3), (3, 2, 1, 0)])
def test_a_removed_repeated_or_moved_line_is_found(tmp_path: Path, kept: tuple[int, ...]) -> None:
    log = tmp_path / "audit.jsonl"
    write_log(log, 4)
    edit_lines(log, lambda lines: [lines[index] for index in kept])
    assert "does not follow on" in messages(log)


def test_a_log_cut_off_at_a_line_is_found_by_an_anchor_alone(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    heads = write_log(log, 4)
    edit_lines(log, lambda lines: lines[:2])
    assert messages(log) == ""
    assert "tag v1 saw 4 entries, here are 2: the log was cut off or replaced" in messages(log, heads[-1])


def test_a_log_that_is_gone_is_found_by_an_anchor(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    head = write_log(log, 3)[-1]
    log.unlink()
    assert "saw 3 entries, here are 0" in messages(log, head)


@pytest.mark.parametrize(
    "change",
    [
        lambda entries: [{**entries[0], "command": "nothing"}, *entries[1:]],
        lambda entries: [entries[1], entries[0], *entries[2:]],
        lambda entries: [*entries[:1], *entries[2:], entries[3]],
        lambda entries: [entries[0], *entries],
    ],
    ids=["edit", "reorder", "removal", "insertion"],
)
def test_a_forger_who_writes_the_whole_chain_anew_is_found_by_an_anchor(
    tmp_path: Path, change: Callable[[list[dict]], list[dict]]
) -> None:
    log = tmp_path / "audit.jsonl"
    heads = write_log(log, 4)
    forge(log, change)
    assert messages(log) == ""
    assert "is not the one that tag v1 saw" in messages(log, heads[2])


def test_what_came_after_the_last_anchor_is_told(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    heads = write_log(log, 5)
    check = verify(log, [Anchor("a", heads[1]), Anchor("b", heads[2]), Anchor("none", AuditHead(0, NO_ENTRY))])
    assert check.ok
    assert check.anchored == 3
    assert check.head.length == 5


def test_a_log_cut_at_any_byte_goes_on_and_loses_nothing_unsaid(tmp_path: Path) -> None:
    log, whole = tmp_path / "audit.jsonl", tmp_path / "whole.jsonl"
    write_log(whole, 3)
    data = whole.read_bytes()
    ends = [index + 1 for index, byte in enumerate(data) if byte == ord("\n")]
    for cut in range(len(data) + 1):
        log.write_bytes(data[:cut])
        # An entry that lacks its line's end alone is whole: its own hash says so.
        complete = sum(1 for end in ends if end - 1 <= cut)
        assert read_head(log).length == complete
        assert verify(log, []).ok
        head = append_entry(log, {"event": "went on"})
        assert head.length == complete + 1
        assert log.read_bytes().startswith(data[:cut])
        check = verify(log, [])
        assert check.ok, (cut, check.findings)
        torn = list(read_entries(log))[-1].get("torn", [])
        left = cut - ([0, *ends][complete] if complete and ends[complete - 1] <= cut else cut if complete else 0)
        assert [item["bytes"] for item in torn] == ([left] if left else [])
        assert len(check.notes) == len(torn)


def test_a_repair_that_is_itself_killed_at_any_byte_is_repaired(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    write_log(log, 2)
    cut = log.read_bytes()[:-30]
    log.write_bytes(cut)
    append_entry(log, {"event": "repair"})
    repaired = log.read_bytes()
    for end in range(len(cut), len(repaired)):
        log.write_bytes(repaired[:end])
        append_entry(log, {"event": "second repair"})
        check = verify(log, [])
        assert check.ok, (end, check.findings)
        assert log.read_bytes().startswith(repaired[:end])


def test_a_cut_short_line_that_was_changed_or_taken_out_afterwards_is_found(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    write_log(log, 2)
    log.write_bytes(log.read_bytes()[:-30])
    append_entry(log, {"event": "went on"})
    good = log.read_bytes()
    edit_lines(log, lambda lines: [lines[0], lines[1][:-5] + b"\n", lines[2]])
    assert "2: no entry, and not as entry 2 below names" in messages(log)
    log.write_bytes(good)
    edit_lines(log, lambda lines: [lines[0], lines[2]])
    assert "names 1 line(s) cut short above it, which are gone" in messages(log)


def test_a_line_that_is_no_entry_and_was_slipped_in_is_found(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    write_log(log, 3)
    for line in (b"rubbish\n", b"\n", b"{}\n", b'{"n": NaN, "sha256": "", "previous": ""}\n', b"[" * 100_000 + b"\n"):
        good = log.read_bytes()
        edit_lines(log, lambda lines, line=line: [lines[0], line, *lines[1:]])
        assert "2: no entry, and not as" in messages(log)
        log.write_bytes(good)


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_no_changed_byte_goes_unseen(tmp_path_factory: pytest.TempPathFactory, place: int, change: int) -> None:
    log = tmp_path_factory.mktemp("log") / "audit.jsonl"
    head = write_log(log, 3)[-1]
    data = bytearray(log.read_bytes())
    data[place % len(data)] ^= change
    log.write_bytes(bytes(data))
    assert not verify(log, [Anchor("tag", head)]).ok


def append_many(log: Path, name: str, count: int) -> None:
    for number in range(count):
        append_entry(log, {"writer": name, "number": number, "filling": "x" * 3000})


def test_writers_at_once_take_turns(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=append_many, args=(log, name, 40)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert messages(log) == ""
    entries = list(read_entries(log))
    assert len(entries) == 160
    for name in "abcd":
        assert [entry["number"] for entry in entries if entry["writer"] == name] == list(range(40))


def test_a_writer_killed_at_any_time_leaves_a_log_that_holds(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    code = (
        "import sys, pathlib\nfrom doseledger.ledger.audit.log import append_entry\n"
        "while True: append_entry(pathlib.Path(sys.argv[1]), {'filling': 'x' * 100000})\n"
    )
    for number in range(4):
        writer = subprocess.Popen([sys.executable, "-c", code, str(log)])
        before = read_head(log).length
        while read_head(log).length < before + 5:
            time.sleep(0.001)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        append_entry(log, {"event": "went on", "number": number})
        assert messages(log) == ""


def test_a_log_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(BadInput, match=r"the audit log can't be written \(Is a directory\); free its disk or mend"):
        append_entry(tmp_path / "audit.jsonl", {})


def test_whoever_holds_the_log_for_too_long_is_complained_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    log = tmp_path / "audit.jsonl"
    write_log(log, 1)
    monkeypatch.setattr(audit, "LOCK_SECONDS", 0.05)
    descriptor = os.open(log, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(BadInput, match="another process has held the audit log"):
        append_entry(log, {})
    os.close(descriptor)
    assert append_entry(log, {}).length == 2


def test_an_entry_can_not_set_what_the_log_writes(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="an entry can't set previous, sha256"):
        append_entry(tmp_path / "audit.jsonl", {"sha256": "", "previous": ""})


def test_an_entry_longer_than_a_block_of_the_tail_is_read_back(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    append_entry(log, {"filling": "x" * (3 * audit.TAIL_BYTES)})
    assert append_entry(log, {}).length == 2
    assert messages(log) == ""


def test_a_file_name_that_is_no_utf8_is_recorded(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    append_entry(log, {"path": os.fsdecode(b"caf\xe9.npz")})
    assert os.fsencode(next(read_entries(log))["path"]) == b"caf\xe9.npz"
    assert messages(log) == ""

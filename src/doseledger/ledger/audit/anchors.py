"""Anchors of the audit log: heads in Git tags, a Git ref, manifests, pages."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from doseledger.core.errors import BadInput
from doseledger.ledger.audit.check import Anchor
from doseledger.ledger.audit.log import AuditHead, read_head, read_log_id
from doseledger.ledger.provenance.git import ask_git

# As text: one line that a person can read, and that is found again in a tag's message, a page or a manifest.
ANCHOR = re.compile(r"audit log: (\d+) entries, head ([0-9a-f]{64}), log ([0-9a-f]{64}|none)")
# A PDF has its title and subject in a compressed stream of objects.
PDF_OBJECTS = re.compile(rb"/ObjStm\b[^>]*>>\s*stream\r?\n")
# Where heads are kept in Git; `git push origin refs/doseledger/audit` takes them to where nobody here can write.
HEADS_REF = "refs/doseledger/audit"
# The identity of who ran a command stands in the log itself.
WRITER = ("-c", "user.name=doseledger", "-c", "user.email=doseledger@localhost")
# As JSON: this key of a manifest, with `length`, `sha256` and `log_id`.
ANCHOR_KEY = "audit"


def anchor_values(log: Path) -> dict[str, int | str]:
    """Return a log's head as the JSON values of a manifest's `audit` key: length, sha256, log_id."""
    head = read_head(log)
    return {"length": head.length, "sha256": head.sha256, "log_id": read_log_id(log)}


def anchor_line(log: Path) -> str:
    """Return a log's head as one line of text."""
    head = read_head(log)
    return f"audit log: {head.length} entries, head {head.sha256}, log {read_log_id(log) or 'none'}"


def tag_anchors(root: Path) -> list[Anchor]:
    """Return the anchors in the messages of all Git tags of a project, by name of the tag; none without Git."""
    listed = ask_git(root, "for-each-ref", "refs/tags", "--format=%(refname:short)%00%(contents)%00")
    fields = (listed or "").split("\0")
    found = []
    for name, message in zip(fields[0::2], fields[1::2], strict=False):
        found += [Anchor(f"tag {name.strip()}", head, log_id) for head, log_id in _heads_in_text(message)]
    return found


def read_given(text: str) -> str:
    """Return the SHA256 of a head that a person typed or copied: 64 hex digits, or the line of `audit head`.

    Raises
    ------
    BadInput
        If it is neither.

    Examples
    --------
    >>> read_given(" " + "AB" * 32) == "ab" * 32
    True
    """
    line = ANCHOR.search(text)
    sha256 = line[2] if line else "".join(text.split()).lower()
    if re.fullmatch(r"[0-9a-f]{64}", sha256) is None:
        raise BadInput(
            f"--head {text!r} is no head of an audit log; wanted its 64 hex digits, or the line `audit log: … entries, "
            "head …` that a page, a tag's message or `doseledger audit head` shows"
        )
    return sha256


def keep_head(root: Path, log: Path) -> None:
    """Keep a log's head under a Git ref of the project, one commit a head; nothing is done without Git.

    Notes
    -----
    Whoever can write the log can write the ref beside it: it counts where it was pushed to (docs/reference/audit.md).
    """
    head = read_head(log)
    tree = (ask_git(root, "mktree", text="") or "").strip()
    if not tree or not head.length:
        return
    before = (ask_git(root, "rev-parse", "--verify", "--quiet", HEADS_REF) or "").strip()
    parent = ("-p", before) if before else ()
    commit = (ask_git(root, *WRITER, "commit-tree", tree, *parent, "-m", anchor_line(log)) or "").strip()
    if commit:
        ask_git(root, "update-ref", HEADS_REF, commit, before or "0" * len(commit))


def ref_anchors(root: Path) -> list[Anchor]:
    """Return the heads that are kept under the project's ref, the latest first; none without Git."""
    messages = ask_git(root, "log", "--format=%B%x00", HEADS_REF) or ""
    heads = [item for message in messages.split("\0") for item in _heads_in_text(message)]
    return [Anchor(HEADS_REF, head, log_id) for head, log_id in heads]


def file_anchors(path: Path, *, is_outside: bool = False) -> list[Anchor]:
    """Return the anchors that a file holds: a manifest's `audit` key, or a line as `anchor_line` writes it.

    Parameters
    ----------
    is_outside
        Whether it lies where whoever writes the log can't write.

    Raises
    ------
    BadInput
        If there is no such file, or it holds none.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file to compare the audit log with")
    text = _text_of(path)
    found = _heads_in_text(text)
    if path.suffix == ".json":
        found += _heads_in_json(path, text)
    if not found:
        raise BadInput(f"{path}: holds no head of an audit log (wanted a key `audit`, or a line `audit log: …`)")
    return [Anchor(str(path), head, log_id, is_outside=is_outside) for head, log_id in found]


def _text_of(path: Path) -> str:
    """A file as text; of a PDF also its compressed objects."""
    content = path.read_bytes()
    if content.startswith(b"%PDF-"):
        content = b"\n".join([content, *_pdf_objects(content)])
    return content.decode("utf-8", errors="replace")


def _pdf_objects(content: bytes) -> Iterator[bytes]:
    for begin in PDF_OBJECTS.finditer(content):
        with suppress(zlib.error):
            yield zlib.decompressobj().decompress(content[begin.end() :])


def _heads_in_text(text: str) -> list[tuple[AuditHead, str]]:
    """Each head in a text once, as a page may say it twice."""
    found = dict.fromkeys(ANCHOR.findall(text))
    return [(AuditHead(int(length), sha256), "" if log_id == "none" else log_id) for length, sha256, log_id in found]


def _heads_in_json(path: Path, text: str) -> list[tuple[AuditHead, str]]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise BadInput(f"{path}: not valid JSON ({error})") from error
    values = content.get(ANCHOR_KEY) if isinstance(content, dict) else None
    if not isinstance(values, dict) or not {"length", "sha256"} <= set(values):
        return []
    try:
        length = int(values["length"])
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"{path}: the length of the log's head is no number; take the file as it was written") from error
    return [(AuditHead(length, str(values["sha256"])), str(values.get("log_id", "")))]

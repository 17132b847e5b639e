"""Data, run and reports as one archive for somebody else: all of it measured, described and unchanged as it goes.

NAME.tar (or NAME.tar.001, …) holds the files and, first of all, what they are: README.md, manifest.json and .md,
files.csv, SHA256SUMS and the contract. NAME.tar.index.json beside it holds the digests of the parts, of each block of
4 MiB and of SHA256SUMS, which can't stand inside. Whoever has the index's own digest can hold every byte to it.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from doseledger.core.contract import Contract, load_contract
from doseledger.core.errors import BadInput
from doseledger.core.files import read_json, read_yaml, sha256_of_bytes, sha256_of_file, to_json, write_json
from doseledger.core.protocol import Protocol
from doseledger.ledger.bitrot import Recorded, recorded_files
from doseledger.ledger.bundle_sources import Wanted, bundle_name, evidence_summary, gather
from doseledger.ledger.contract_check import FileCheck, check_data_set
from doseledger.ledger.manifest import (
    CONTRACT,
    MANIFEST,
    OWN,
    PAGE,
    README,
    SUMS,
    TABLE,
    Entry,
    Source,
    files_table,
    measure,
    sums_text,
)
from doseledger.ledger.markdown import render_markdown
from doseledger.ledger.parts import (
    BLOCK_BYTES,
    PartWriter,
    check_names,
    member_head,
    open_writer,
    scratch_folder,
)
from doseledger.ledger.provenance import git_state, run_provenance
from doseledger.ledger.raw_dicom import refuse_raw_dicom

FORMAT_VERSION = 1
SUFFIX = ".tar"
INDEX_SUFFIX = ".index.json"
# How many findings of a contract a refusal spells out.
MOST_SHOWN = 8
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """How a bundle is made.

    Parameters
    ----------
    wanted
        What goes into it.
    root
        The project: its Git repository, dvc.lock and lock of packages.
    contract
        The YAML that every NPZ of the data is held to; None only where there is no data.
    templates
        Folder with the templates of README and manifest page.
    scenario
        An identifier of the receiver's own; may be empty.
    audit
        Length, digest and id of the audit log, as `anchors.anchor_values` gives them; None where there is no log.
    dicom_protocol
        By its `phi` block raw DICOM is scanned; None lets no raw DICOM in.
    part_bytes
        Size of a part; None for one file.
    """

    wanted: Wanted
    root: Path
    contract: Path | None
    templates: Path
    scenario: str = ""
    audit: dict[str, int | str] | None = None
    dicom_protocol: Protocol | None = None
    part_bytes: int | None = None


def pack(out: Path, order: Order, cache: Path | None, tell: Tell) -> dict[str, Any]:
    """Return the index of a bundle that was written whole, `NAME.tar.index.json` as JSON values.

    Parameters
    ----------
    out
        NAME.tar; nothing of that name may be there. Written beside it first, and moved when whole.
    order
        What goes in, and how.
    cache
        DVC's cache, by which the files of recorded folders are known; None where there is no DVC project.
    tell
        Called with one line a step.

    Raises
    ------
    BadInput
        If a name, a link, an array of objects, a broken contract, a file that is not what dvc.lock records, raw DICOM
        that nobody asked for, or a file that changes while it is packed stands in the way. Nothing is left behind then.
    BadCase
        If raw DICOM may identify a patient.
    """
    _refuse_taken(out)
    recorded = recorded_files(order.root, cache) if cache is not None else {}
    sources = gather(order.wanted, order.root, recorded)
    check_names([*OWN, *(source.name for source in sources)], str(out))
    n_dicom = refuse_raw_dicom({source.name: source.path for source in sources}, order.dicom_protocol)
    checks = _keep_contract(order, tell)
    entries: list[Entry] = []
    for number, source in enumerate(sources, start=1):
        entries.append(measure(source, checks.get(source.name)))
        tell(f"[{number}/{len(sources)}] {source.name}")
    own = _own_files(out.name.removesuffix(SUFFIX), order, entries, _stages(recorded, entries, order.root), n_dicom)
    with scratch_folder(out) as scratch:
        parts, blocks = _write_archive(scratch, out.name, order.part_bytes, own, sources, entries)
        index = {
            "format": FORMAT_VERSION,
            "bundle": out.name,
            "scenario": order.scenario,
            "size": sum(part["size"] for part in parts),
            "parts": parts,
            "block_bytes": BLOCK_BYTES,
            "blocks": blocks,
            "sums_sha256": sha256_of_bytes(own[SUMS]),
            "audit": order.audit,
        }
        write_json(scratch / f"{out.name}{INDEX_SUFFIX}", index)
        # The index comes last: an archive without one is known to be unfinished.
        for name in (*(part["name"] for part in parts), f"{out.name}{INDEX_SUFFIX}"):
            (scratch / name).rename(out.with_name(name))
    return index


def index_path(archive: Path) -> Path:
    """Return where the index of an archive lies."""
    return archive.with_name(f"{archive.name}{INDEX_SUFFIX}")


def _refuse_taken(out: Path) -> None:
    if out.suffix != SUFFIX:
        raise BadInput(f"{out}: wanted a name that ends in {SUFFIX}")
    taken = [
        path.name for path in (out, index_path(out), *out.parent.glob(f"{out.name}.[0-9][0-9][0-9]")) if path.exists()
    ]
    if taken:
        raise BadInput(f"{out}: {', '.join(taken)} is there already; a bundle is never overwritten, give another name")


def _keep_contract(order: Order, tell: Tell) -> dict[str, FileCheck]:
    """What the contract says of each NPZ of the data, by its name in the bundle; anything amiss is a refusal."""
    if not order.wanted.data:
        return {}
    if order.contract is None:
        raise BadInput("data are packed under a contract: give --contract (docs/reference/contracts.md)")
    contract = load_contract(order.contract)
    found: dict[str, FileCheck] = {}
    for folder in order.wanted.data:
        check = check_data_set(folder, contract)
        lines = check.lines
        if lines:
            more = f"\n  - and {len(lines) - MOST_SHOWN} more" if len(lines) > MOST_SHOWN else ""
            shown = "".join(f"\n  - {line}" for line in lines[:MOST_SHOWN])
            raise BadInput(f"{folder}: breaks the contract {contract.name} in {len(lines)} place(s):{shown}{more}")
        tell(f"{folder}: {len(check.files)} file(s) keep the contract {contract.name}")
        place = bundle_name(folder, order.root, "data")
        found |= {f"{place}/{name}": item for name, item in check.files.items()}
    return found


def _stages(recorded: dict[str, Recorded], entries: list[Entry], root: Path) -> list[dict[str, Any]]:
    """The stages that made what is packed: their command, the data they read and what they wrote, by DVC's hashes."""
    lock = root / "dvc.lock"
    known = (read_yaml(lock) or {}).get("stages") or {} if lock.is_file() else {}
    used = {entry.stage for entry in entries}
    return [
        {
            "stage": name,
            "command": " ".join(str(stage.get("cmd", "")).split()),
            "reads": {
                str(dep["path"]): _hash(dep) for dep in stage.get("deps") or [] if not _is_code(str(dep["path"]))
            },
            "writes": {str(out["path"]): _hash(out) for out in stage.get("outs") or []},
        }
        for name, stage in known.items()
        if name in used
    ]


def _hash(item: dict[str, Any]) -> str:
    return str(item.get("md5") or item.get("hash") or "")


def _is_code(path: str) -> bool:
    return path.endswith(".py") or path.startswith("src/")


def _own_files(
    name: str, order: Order, entries: list[Entry], stages: list[dict[str, Any]], n_dicom: int
) -> dict[str, bytes]:
    """What a bundle says of itself, by file name; SHA256SUMS covers all the others."""
    contract = load_contract(order.contract) if order.contract is not None and order.wanted.data else None
    content: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "name": name,
        "scenario": order.scenario,
        "doseledger": metadata.version("doseledger"),
        "code": git_state(order.root).as_dict(),
        "environment": _environments(order, entries),
        "audit": order.audit,
        "contract": None
        if order.contract is None or contract is None
        else {"name": contract.name, "title": contract.title, "sha256": sha256_of_file(order.contract)},
        "totals": _totals(entries),
        "raw_dicom": n_dicom,
        "stages": stages,
        "evidence": [{"path": f"evidence/{log.name}", **evidence_summary(log)} for log in order.wanted.evidence],
        "files": [entry.as_dict() for entry in entries],
    }
    own: dict[str, bytes] = {
        MANIFEST: to_json(content).encode(),
        TABLE: files_table(entries).encode(),
        PAGE: render_markdown(order.templates, "bundle_manifest.md.j2", content).encode(),
        README: render_markdown(
            order.templates, "bundle_readme.md.j2", {**content, "archive": f"{name}{SUFFIX}", "rules": _rules(contract)}
        ).encode(),
    }
    if order.contract is not None and contract is not None:
        own[CONTRACT] = order.contract.read_bytes()
    digests = {entry.path: entry.sha256 for entry in entries}
    own[SUMS] = sums_text(digests | {key: sha256_of_bytes(value) for key, value in own.items()}).encode()
    return own


def _rules(contract: Contract | None) -> list[dict[str, Any]]:
    """The contract's arrays as rows for a reader."""
    if contract is None:
        return []
    return [
        {
            "name": name,
            "required": rules.required,
            "type": " or ".join(rules.dtypes or rules.kinds or []),
            "axes": ", ".join(rules.axes) or "a single value",
            "range": _range(rules.min, rules.max),
            "describes": rules.describes,
        }
        for name, rules in contract.arrays.items()
    ]


def _range(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    return f"{'' if low is None else f'{low:g}'} … {'' if high is None else f'{high:g}'}".strip()


def _totals(entries: list[Entry]) -> dict[str, Any]:
    roles = sorted({entry.role for entry in entries})
    return {
        "files": len(entries),
        "bytes": sum(entry.size for entry in entries),
        "arrays": sum(len(entry.arrays) for entry in entries),
        "roles": {
            role: {
                "files": sum(entry.role == role for entry in entries),
                "bytes": sum(entry.size for entry in entries if entry.role == role),
            }
            for role in roles
        },
    }


def _environments(order: Order, entries: list[Entry]) -> list[dict[str, Any]]:
    """Where each packed run was made by its own run.json; where the bundle was made, if there is no run."""
    found: list[dict[str, Any]] = []
    for folder in order.wanted.runs:
        for path in sorted([folder] if folder.is_file() else folder.rglob("run.json")):
            run = read_json(path) if path.name == "run.json" else {}
            if isinstance(run.get("provenance"), dict):
                where = bundle_name(path, order.root, "run")
                found.append({"of": where, "device": run.get("device"), "seed": run.get("seed"), **run["provenance"]})
    if not found:
        here = run_provenance(order.root, ["doseledger", "bundle", "pack"], order.root / "requirements.lock")
        found.append({"of": "the machine that packed", "device": None, "seed": None, **here})
    return found


def _write_archive(
    scratch: Path, name: str, part_bytes: int | None, own: dict[str, bytes], sources: list[Source], entries: list[Entry]
) -> tuple[list[dict[str, Any]], list[str]]:
    writer = PartWriter(scratch, name, part_bytes)
    with open_writer(writer) as archive:
        for key in OWN:
            if key in own:
                archive.addfile(member_head(key, len(own[key])), io.BytesIO(own[key]))
        for source, entry in zip(sources, entries, strict=True):
            with source.path.open("rb") as stream:
                watched = _Watched(stream)
                try:
                    archive.addfile(member_head(entry.path, entry.size), watched)
                except OSError as error:
                    # tarfile says so where a file ends before its size is reached.
                    if "unexpected end of data" not in str(error):
                        raise
                    raise _changed(entry) from error
                if watched.digest.hexdigest() != entry.sha256 or stream.read(1):
                    raise _changed(entry)
    return [asdict(part) for part in writer.parts], writer.blocks


def _changed(entry: Entry) -> BadInput:
    return BadInput(f"{entry.path}: changed while it was packed; let what writes it end, and pack again")


class _Watched(io.RawIOBase):
    """A file whose digest is taken as it is read."""

    def __init__(self, stream: io.BufferedReader) -> None:
        super().__init__()
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        content = self._stream.read(size)
        self.digest.update(content)
        return content


SCENARIO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_scenario(scenario: str) -> str:
    """Return a scenario's identifier as it is.

    Raises
    ------
    BadInput
        If it can't be part of a file's name.
    """
    if scenario and not SCENARIO.fullmatch(scenario):
        raise BadInput(f"scenario {scenario!r}: wanted letters, digits, '.', '_' and '-', at most 64")
    return scenario


def iterate_entries(manifest: dict[str, Any]) -> Iterator[Entry]:
    """Yield the entries of a manifest."""
    for value in manifest["files"]:
        yield Entry.from_dict({"stage": "", **value})

"""Raw cases to cases and tables; only what changed is converted."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa

from doseledger.core.case import read_meta
from doseledger.core.code import reached_code
from doseledger.core.errors import BadCase, BadInput, NotReady, SkippedCase
from doseledger.core.files import all_or_none, atomic_path, read_json, sha256_of_file, sha256_of_json, write_json
from doseledger.core.pool.cluster import HERE, Scale
from doseledger.core.pool.fanout import over_cases, take_shard
from doseledger.core.project.protocol import Protocol
from doseledger.core.tables import CASE_ID, CASES, RAW, SKIPPED, STRUCTURES, read_table, write_table
from doseledger.core.text.lists import first_of
from doseledger.dicom.read import Link
from doseledger.ingest.found import count_structures
from doseledger.ingest.names.nomenclature import SYNONYMS
from doseledger.ingest.patient.case import Origin
from doseledger.ingest.sources import SOURCES

# Optional table beside the raw cases: what DICOM doesn't say, or shouldn't.
GROUPS_FILE = "groups.csv"
GROUPS = pa.DataFrameSchema(
    {"case_id": pa.Column(str, CASE_ID), "group": pa.Column(str), "site": pa.Column(str)},
    name="groups",
    unique=["case_id"],
    strict=True,
    coerce=True,
)
# What changes no case: its title, and the beams that maps beside it are made of.
NOT_IN_KEY = frozenset({"title", "beams"})
Entry = dict[str, Any]


@dataclass(frozen=True)
class IngestCount:
    """How many cases were converted, taken from an earlier run, skipped and failed."""

    converted: int
    reused: int
    skipped: int
    failed: int


@dataclass(frozen=True)
class IngestRun:
    """How an ingest is run, beside what it reads and writes.

    Parameters
    ----------
    raw_list
        data/raw/<cohort>.csv, to compare with; None where there is none yet.
    index
        Where the record of earlier conversions lies; None to convert everything.
    cache_dir
        A content store by MD5 (`<dir>/ab/cdef…`, as `.dvc/cache/files/md5`) that may hold cases which DVC took
        out of the way; None where there is none.
    shard
        "i/n": only every n-th case, and no tables; a last run without a shard gathers them.
    link
        How objects of a case are told to belong together, as `dicom.read.gather_objects` has it.
    """

    scale: Scale = HERE
    raw_list: Path | None = None
    index: Path | None = None
    cache_dir: Path | None = None
    shard: str | None = None
    link: Link = "references"


def ingest(raw: Path, out: Path, protocol: Protocol, run: IngestRun, tell: Callable[[str], None]) -> IngestCount:
    """Return how many cases were converted, reused, skipped and failed, after writing NPZ files and tables to `out`.

    Parameters
    ----------
    raw
        Folder with one folder or one zip a case, and optionally `groups.csv` (case_id, group, site).
    out
        Gets `<case>.npz`, `cases.csv`, `skipped.csv` and `structures.csv`; an NPZ of a case that is no longer sound
        is removed.
    protocol
        What a case must have.
    run
        How it is run.
    tell
        Called with one line a case.

    Raises
    ------
    BadInput
        If there is no case, or `groups.csv` names others than are there.
    NotReady
        If the raw folder is not what the committed list says: cases missing, unlisted or changed.
    """
    of = SOURCES[protocol.source]
    sources = of.find(raw)
    digests, unreadable = of.digests(sources)
    if run.raw_list is not None:
        _check_list(run.raw_list, digests, unreadable, raw)
    groups = _read_groups(raw / GROUPS_FILE, list(sources))
    mine = [case_id for case_id in take_shard(list(sources), run.shard) if case_id not in unreadable]
    origins = {
        case_id: Origin(case_id, *groups.get(case_id, ("unknown", "unknown")), sha256=digests[case_id], link=run.link)
        for case_id in mine
    }
    context = of.context(sources)
    known = _read_index(run.index)

    def key(case_id: str, entry: Mapping[str, Any]) -> str:
        return _key(origins[case_id], protocol, context, entry.get("names"))

    old = {c: entry for c in mine if (entry := known.get(c, {})) and entry.get("key") == key(c, entry)}
    entries = {case_id: entry for case_id, entry in old.items() if _restore(entry, out / f"{case_id}.npz", run)}
    reused = sum("sha256" in entry for entry in entries.values())
    todo = {c: (sources[c], out / f"{c}.npz", origin, protocol) for c, origin in origins.items() if c not in entries}
    out.mkdir(parents=True, exist_ok=True)
    outcome = over_cases(_convert_to_file, todo, run.scale, tell=tell)
    for case_id, hashes in outcome.done.items():
        entries[case_id] = {"key": key(case_id, hashes), **hashes}
    for case_id, error in {**unreadable, **outcome.failed}.items():
        verdict = "skipped" if isinstance(error, SkippedCase) else "failed"
        told = {"status": verdict, "reason": error.reason, "hints": _hints()}
        entries[case_id] = {"key": "" if case_id in unreadable else key(case_id, told), **told}
    _write_index(run, known, entries)
    _remove_stale(out, set(sources) if run.shard else set(), entries)
    if run.shard is None:
        _write_tables(out, entries, protocol)
    status = [entry.get("status") for entry in entries.values()]
    return IngestCount(len(outcome.done), reused, status.count("skipped"), status.count("failed"))


def _convert_to_file(source: Path, target: Path, origin: Origin, protocol: Protocol) -> Entry:
    """Convert one case, save it, and return the digests of its file and the names in its source."""
    converted = SOURCES[protocol.source].convert(source, origin, protocol)
    converted.case.save(target)
    md5 = hashlib.md5(usedforsecurity=False)
    with target.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            md5.update(chunk)
    return {"sha256": sha256_of_file(target), "md5": md5.hexdigest(), "names": converted.names}


def _check_list(raw_list: Path, digests: Mapping[str, str], unreadable: Mapping[str, BadCase], raw: Path) -> None:
    """Refuse a partial or changed checkout: converting it would record that the other cases are gone."""
    table = read_table(raw_list, RAW)
    listed = dict(zip(table["case_id"], table["sha256"], strict=True))
    there = [c for c in digests if c in listed]
    complaints = [
        f"{len(cases)} {what} ({first_of(cases, 3)})"
        for what, cases in {
            "listed but absent": [c for c in listed if c not in digests],
            "there but not listed": [c for c in digests if c not in listed],
            "that can't be read": [str(unreadable[c]) for c in there if c in unreadable],
            "changed": [c for c in there if c not in unreadable and listed[c] != digests[c]],
        }.items()
        if cases
    ]
    if complaints:
        raise NotReady(
            f"{raw} is not what {raw_list} lists: {', '.join(complaints)} of {len(listed)} cases. "
            f"Fetch the whole cohort (dvc pull), or run `doseledger raw pack {raw}` if the change is meant"
        )


def _read_groups(path: Path, case_ids: list[str]) -> dict[str, tuple[str, str]]:
    if not path.exists():
        return {}
    table = read_table(path, GROUPS)
    strangers = [c for c in table["case_id"] if c not in case_ids]
    if strangers:
        raise BadInput(f"{path} names {first_of(strangers, 5)}, which are not among the raw cases")
    return dict(zip(table["case_id"], zip(table["group"], table["site"], strict=True), strict=True))


@cache
def _hints() -> str:
    """Digest of the synonyms: a reason holds hints, a case does not."""
    return sha256_of_file(SYNONYMS)


@cache
def _converter(source: str) -> dict[str, str]:
    """Digests of the code that a conversion runs through."""
    return reached_code(SOURCES[source].converter)


def _key(origin: Origin, protocol: Protocol, context: Mapping[str, str], names: Sequence[str] | None) -> str:
    """What a conversion hangs on: raw files, what is said of them, code, and protocol without its texts.

    Of a case that was converted before, the names in its files are known; only aliases that are among them count. A
    refusal spells out the others too, so there all count.
    """
    rules = protocol.model_dump(mode="json", exclude=set(NOT_IN_KEY))
    if names is not None:
        for block, structure in zip(rules["structures"], protocol.structures, strict=True):
            block["aliases"] = [name for name in structure.folded_names if name in names]
    return sha256_of_json(
        {
            "raw": origin.sha256,
            **({"context": dict(context)} if context else {}),
            "case": [origin.case_id, origin.group, origin.site, origin.link],
            "code": _converter(protocol.source),
            "protocol": rules,
        }
    )


def _index_files(index: Path) -> list[Path]:
    """The index, and those that shards wrote beside it."""
    return sorted(index.parent.glob(f"{index.stem}.*of*.json")) + ([index] if index.exists() else [])


def _read_index(index: Path | None) -> dict[str, Entry]:
    if index is None:
        return {}
    known: dict[str, Entry] = {}
    for path in _index_files(index):
        try:
            known.update(read_json(path))
        except (BadInput, TypeError, ValueError):
            # Losing the index costs time, never a result.
            continue
    return known


def _write_index(run: IngestRun, known: dict[str, Entry], entries: dict[str, Entry]) -> None:
    if run.index is None:
        return
    if run.shard is not None:
        write_json(run.index.with_name(f"{run.index.stem}.{run.shard.replace('/', 'of')}.json"), entries)
        return
    write_json(run.index, {**known, **entries})


def _restore(entry: Entry, target: Path, run: IngestRun) -> bool:
    """Whether an earlier result stands: its file is there with its hash, or can be had from the store by its MD5."""
    if "status" in entry:
        return bool(entry.get("hints") == _hints())
    if target.exists() and sha256_of_file(target) == entry["sha256"]:
        return True
    if run.cache_dir is None:
        return False
    stored = run.cache_dir / entry["md5"][:2] / entry["md5"][2:]
    if not stored.exists() or sha256_of_file(stored) != entry["sha256"]:
        return False
    with atomic_path(target) as part:
        try:
            os.link(stored, part)
        except OSError:
            shutil.copyfile(stored, part)
    return True


def _remove_stale(out: Path, others: set[str], entries: dict[str, Entry]) -> None:
    """Remove NPZ files of cases that are gone, or no longer sound: nothing of a bad case is left."""
    for path in out.glob("*.npz"):
        entry = entries.get(path.stem)
        if (entry is None and path.stem not in others) or (entry is not None and "status" in entry):
            path.unlink()


def _write_tables(out: Path, entries: dict[str, Entry], protocol: Protocol) -> None:
    rows, skipped = [], []
    for case_id, entry in sorted(entries.items()):
        if "status" in entry:
            skipped.append({"case_id": case_id, "status": entry["status"], "reason": entry["reason"]})
            continue
        meta = read_meta(out / f"{case_id}.npz")
        columns = ("pseudonym", "group", "site", "source_sha256")
        rows.append(
            {"case_id": case_id, **{key: meta[key] for key in columns}, "sha256": entry["sha256"]}
            | {"n_warnings": len(meta["warnings"])}
        )
    counts = count_structures((out / f"{row['case_id']}.npz" for row in rows), protocol)
    with all_or_none():
        write_table(out / "cases.csv", pd.DataFrame(rows, columns=list(CASES.columns)), CASES)
        write_table(out / "skipped.csv", pd.DataFrame(skipped, columns=list(SKIPPED.columns)), SKIPPED)
        write_table(out / "structures.csv", counts, STRUCTURES)

"""Description of a bundle: README, manifest, table of files and digests."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadInput
from doseledger.core.files import read_mapping, sha256_of_bytes, sha256_of_file, to_json
from doseledger.core.project.protocol import Protocol
from doseledger.core.text.template import render_markdown
from doseledger.ledger.bundle.bitrot import LOCK
from doseledger.ledger.bundle.manifest import (
    CONTRACT,
    FORMAT_VERSION,
    MANIFEST,
    PAGE,
    README,
    SUMS,
    TABLE,
    Entry,
    Manifest,
    files_table,
    sums_text,
)
from doseledger.ledger.bundle.sources import Wanted, bundle_name, evidence_summary
from doseledger.ledger.provenance.dvc_files import read_lock
from doseledger.ledger.provenance.stamp import git_state, run_provenance
from doseledger.parity.contract import Contract, load_contract

SUFFIX = ".tar"
SCENARIO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Order:
    """How a bundle is made.

    Parameters
    ----------
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


def describe_bundle(name: str, order: Order, entries: list[Entry], n_dicom: int) -> dict[str, bytes]:
    """Return the files about a bundle by their names; SHA256SUMS, the last, covers all others."""
    contract = load_contract(order.contract) if order.contract is not None and order.wanted.data else None
    manifest = Manifest.model_validate(
        {
            "format": FORMAT_VERSION,
            "name": name,
            "scenario": order.scenario,
            "doseledger": metadata.version("doseledger"),
            "code": git_state(order.root).as_dict(),
            "environment": _environments(order),
            "audit": order.audit,
            "contract": None
            if order.contract is None or contract is None
            else {"name": contract.name, "title": contract.title, "sha256": sha256_of_file(order.contract)},
            "totals": _totals(entries),
            "raw_dicom": n_dicom,
            "stages": _stages(entries, order.root),
            "evidence": [{"path": f"evidence/{log.name}", **evidence_summary(log)} for log in order.wanted.evidence],
            "files": entries,
        }
    )
    # What a file has not got is left out.
    content = manifest.model_dump(exclude_defaults=True)
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


def _stages(entries: list[Entry], root: Path) -> list[dict[str, Any]]:
    """The stages behind what is packed, in the lock's order: command, data read and written, by DVC's hashes."""
    found = {
        name: {
            "stage": name,
            "command": _command(stage.get("cmd", "")),
            "reads": {path: md5 for path, md5 in _hashes(stage, "deps").items() if not _is_code(path)},
            "writes": _hashes(stage, "outs"),
        }
        for name, stage in read_lock(root / LOCK).items()
    }
    wanted = {entry.stage for entry in entries} & set(found)
    while True:
        needed = {path for name in wanted for path in found[name]["reads"]}
        behind = {name for name, stage in found.items() if any(_meet(path, needed) for path in stage["writes"])}
        if behind <= wanted:
            return [stage for name, stage in found.items() if name in wanted]
        wanted |= behind


def _command(cmd: Any) -> str:
    """A stage's command in one line; one of several is run as the shell's `&&` would."""
    return " && ".join(" ".join(str(part).split()) for part in (cmd if isinstance(cmd, list) else [cmd]))


def _meet(out: str, needed: set[str]) -> bool:
    """Whether something needed is this out, lies in it, or holds it."""
    return any(path == out or path.startswith(f"{out}/") or out.startswith(f"{path}/") for path in needed)


def _hashes(stage: dict[str, Any], kind: str) -> dict[str, str]:
    # What DVC calls `hash` there is the name of the algorithm.
    return {str(item["path"]): str(item.get("md5") or "") for item in stage.get(kind) or []}


def _is_code(path: str) -> bool:
    return path.endswith(".py") or path.startswith("src/")


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
    files, sizes = Counter(entry.role for entry in entries), Counter[str]()
    for entry in entries:
        sizes[entry.role] += entry.size
    return {
        "files": len(entries),
        "bytes": sizes.total(),
        "arrays": sum(len(entry.arrays) for entry in entries),
        "recorded": sum(bool(entry.md5) for entry in entries),
        "roles": {role: {"files": files[role], "bytes": sizes[role]} for role in sorted(files)},
    }


def _environments(order: Order) -> list[dict[str, Any]]:
    """Where each packed run was made by its own run.json; where the bundle was made, if there is no run."""
    found: list[dict[str, Any]] = []
    for folder in order.wanted.runs:
        for path in sorted([folder] if folder.is_file() else folder.rglob("run.json")):
            run = read_mapping(path) if path.name == "run.json" else {}
            if isinstance(run.get("provenance"), dict):
                where = bundle_name(path, order.root, "run")
                found.append({"of": where, "device": run.get("device"), "seed": run.get("seed"), **run["provenance"]})
    if not found:
        here = run_provenance(order.root, ["doseledger", "bundle", "pack"], order.root / "requirements.lock")
        found.append({"of": "the machine that packed", "device": None, "seed": None, **here})
    return found

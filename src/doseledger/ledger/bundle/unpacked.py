"""A bundle that was unpacked: its files measured anew, arrays and contract too, and held to its own manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from doseledger.core.errors import BadInput
from doseledger.core.files import read_json, sha256_of_file
from doseledger.ledger.bundle.manifest import CONTRACT, KEPT, MANIFEST, SUMS, Entry, read_sums
from doseledger.ledger.bundle.outcome import BundleCheck, compare_sums
from doseledger.ledger.bundle.pack import iterate_entries
from doseledger.parity.arrays import array_heads
from doseledger.parity.check import check_file
from doseledger.parity.contract import load_contract


def _files_below(folder: Path) -> Iterator[str]:
    for path, below, names in os.walk(folder):
        # A link to a folder is listed among the folders, and is not one.
        links = [name for name in below if Path(path, name).is_symlink()]
        for name in [*names, *links]:
            yield Path(path, name).relative_to(folder).as_posix()


def verify_folder(folder: Path, sums_sha256: str) -> BundleCheck:
    """Return what of an unpacked bundle is not as it was packed.

    Parameters
    ----------
    folder
        Where it was unpacked.
    sums_sha256
        Digest that SHA256SUMS must have; empty where none is known.

    Raises
    ------
    BadInput
        If the folder holds no bundle.
    """
    sums = folder / SUMS
    if not sums.is_file():
        raise BadInput(f"{folder}: no {SUMS} in it, so this is no unpacked bundle")
    there = set(_files_below(folder))
    links = sorted(name for name in there if (folder / name).is_symlink())
    findings = [f"{name}: a symbolic link, a bundle holds none" for name in links]
    findings += compare_sums(
        sums.read_bytes(),
        sums_sha256.lower(),
        there - {SUMS} - set(links),
        lambda name, wanted: sha256_of_file(folder / name) != wanted,
    )
    if not findings:
        findings = compare_manifest(folder)
    return BundleCheck(folder.name, findings, len(there), sum((folder / name).lstat().st_size for name in there))


def compare_manifest(folder: Path) -> list[str]:
    """Return what differs between an unpacked bundle measured anew, its arrays and contract too, and its manifest."""
    manifest = read_json(folder / MANIFEST)
    named = manifest.get("contract")
    contract = load_contract(folder / CONTRACT, str(named["name"])) if named else None
    sums = read_sums((folder / SUMS).read_text(encoding="utf-8"), SUMS)
    findings: list[str] = []
    for entry in iterate_entries(manifest):
        if entry.path not in sums:
            findings.append(f"{entry.path}: in {MANIFEST} and not in {SUMS}")
            continue
        findings += [f"{entry.path}: {text}" for text in _compare_entry(folder, entry, sums[entry.path])]
        if entry.contract == KEPT and contract is not None:
            # The contract's pattern is about names below the data set's folder; arrays are what counts here.
            findings += check_file(folder, entry.path, contract).lines
    return findings


def _compare_entry(folder: Path, entry: Entry, sha256: str) -> list[str]:
    """What differs between a file and its entry; its digest was taken already, against SHA256SUMS."""
    path = folder / entry.path
    found: list[str] = []
    if (path.stat().st_size, sha256) != (entry.size, entry.sha256):
        found.append(f"{path.stat().st_size} bytes, SHA256 {sha256}; the manifest has {entry.size} and {entry.sha256}")
    if entry.arrays:
        arrays = {name: {"dtype": str(h.dtype), "shape": list(h.shape)} for name, h in array_heads(path).items()}
        found += [
            f"array {name} is {arrays.get(name)}, the manifest has {entry.arrays.get(name)}"
            for name in sorted(set(arrays) | set(entry.arrays))
            if arrays.get(name) != entry.arrays.get(name)
        ]
    return found

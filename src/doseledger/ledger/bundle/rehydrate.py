"""Unpacking of a bundle elsewhere, whole and as it was packed, or not at all."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

from doseledger.core.errors import BadInput
from doseledger.core.files import CHUNK_BYTES
from doseledger.core.types import Tell
from doseledger.ledger.bundle.parts import open_reader, opened, require_space, scratch_folder
from doseledger.ledger.bundle.verify import (
    BundleCheck,
    archive_of,
    enforce_whole,
    read_index,
    verify_bundle,
    verify_folder,
)


def rehydrate(bundle: Path, destination: Path, index_sha256: str, tell: Tell) -> BundleCheck:
    """Return the check of a bundle that was unpacked whole to a new folder and measured again there.

    Parameters
    ----------
    bundle
        NAME.tar, one of its parts or its index.
    destination
        A folder that is not there yet; it appears when all of it is there and is what was packed.
    index_sha256
        As for `verify_bundle`.

    Raises
    ------
    BadInput
        If the destination exists, or the bundle is no bundle.
    NotReady
        If the disk has no room for it.
    GateFailed
        If anything differs, before or after unpacking; nothing is left behind then.
    """
    if destination.exists() or destination.is_symlink():
        raise BadInput(f"{destination}: is there already, and nothing is ever overwritten; name a new folder")
    if bundle.is_dir():
        raise BadInput(f"{bundle}: a folder; it is unpacked already, `doseledger bundle verify {bundle}` checks it")
    archive = archive_of(bundle)
    enforce_whole(verify_bundle(bundle, index_sha256, tell))
    index = read_index(archive)
    paths = [archive.with_name(part.name) for part in index.parts]
    require_space(destination.parent, index.size)
    with scratch_folder(destination) as scratch:
        inside = scratch / destination.name
        with open_reader(paths, archive.name) as (tar, members):
            for name, head in members.items():
                _unpack(tar, head, inside / name)
        tell(f"{len(members)} files unpacked; measuring them again")
        check = verify_folder(inside, index.sums_sha256)
        enforce_whole(BundleCheck(archive.name, check.findings))
        # rename refuses a folder that is not empty, so whatever appeared there meanwhile is safe.
        inside.rename(destination)
    return BundleCheck(archive.name, [], check.n_files, check.n_bytes)


def _unpack(tar: tarfile.TarFile, head: tarfile.TarInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as out:
        shutil.copyfileobj(opened(tar, head), out, CHUNK_BYTES)

"""A raw cohort -> a clean copy: new names, linked UIDs, shifted dates; scanned again before it counts as clean."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import atomic_path
from doseledger.core.protocol import Phi, Protocol
from doseledger.dicom.deidentify import Pseudonymiser, deidentify_dataset
from doseledger.dicom.phi import refuse_phi
from doseledger.dicom.source import lenient, malformed_as_bad_case, read_source
from doseledger.dicom.values import text_of
from doseledger.ingest.pack import find_sources, pack_case

SALT_BYTES = 32


def read_salt(path: Path) -> bytes:
    """Return the secret that pseudonyms are made with; a new one is drawn and written where there is none.

    Raises
    ------
    BadInput
        If the file holds less than 16 bytes.

    Notes
    -----
    Keep it out of the project and apart from the clean copy: with it a guessed patient id can be tested. Without it the
    same patient gets another pseudonym next time.
    """
    if not path.exists():
        with atomic_path(path) as part:
            part.touch(mode=0o600)
            part.write_bytes(secrets.token_bytes(SALT_BYTES))
    salt = path.read_bytes()
    if len(salt) < 16:
        raise BadInput(f"{path}: {len(salt)} bytes are no secret, wanted 16 or more; delete it to have one drawn")
    return salt


def deidentify(raw: Path, out: Path, protocol: Protocol, salt: bytes, tell: Callable[[str], None]) -> list[str]:
    """Return the names of the cases that were written clean to `out`, each a folder or a zip as it came.

    Parameters
    ----------
    raw
        Folder with one folder or one zip a case.
    out
        Another folder; a case that is there already is refused.
    protocol
        Its `phi` block says what a pseudonym looks like and which attributes keep their value.
    salt
        Secret of this cohort, from `read_salt`.
    tell
        Called with one line a case; the old name is not repeated beside the new one.

    Raises
    ------
    BadInput
        If `out` is `raw`, or the protocol has no `phi` block.
    BadCase
        If a case can't be made clean; those before it are whole, nothing of it is written.
    """
    if protocol.phi is None:
        raise BadInput(f"protocol {protocol.name} has no phi block; it says what a pseudonym looks like")
    if out.resolve() == raw.resolve():
        raise BadInput(f"{out}: the clean copy must not go where the raw data are")
    sources = find_sources(raw)
    written: list[str] = []
    for index, (case_id, source) in enumerate(sources.items(), start=1):
        written.append(_deidentify_case(source, case_id, out, protocol.phi, salt))
        tell(f"[{index}/{len(sources)}] {written[-1]}")
    return written


def _deidentify_case(source: Path, case_id: str, out: Path, phi: Phi, salt: bytes) -> str:
    with lenient():
        files, _ = read_source(source)
        patient_ids = {text_of(file.dataset, "PatientID") for file in files} - {""}
        if len(patient_ids) != 1:
            raise BadCase(
                case_id, f"{len(patient_ids)} different PatientIDs in one case, wanted one; export them apart"
            )
        names = Pseudonymiser(salt, phi, patient_ids.pop())
        keeps_name = re.fullmatch(phi.pseudonym, case_id) is not None
        stem = case_id if keeps_name else names.pseudonym
        target = out / (stem if source.is_dir() else f"{stem}.zip")
        if target.exists():
            raise BadCase(case_id, f"{target} is there already (two cases of one patient?); rename the raw case")
        work = out / f"{stem}.part"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            # File names may hold a patient's name: they are replaced, in the order of the old ones.
            for number, file in enumerate(files, start=1):
                with malformed_as_bad_case(case_id):
                    clean = deidentify_dataset(file.dataset, names, case_id)
                name = f"{clean.get('Modality') or 'file'}_{number:04d}.dcm"
                clean.save_as(work / name, enforce_file_format=True)
            refuse_phi(read_source(work)[0], phi, case_id)
            if source.is_dir():
                work.rename(target)
            else:
                pack_case(work, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return stem

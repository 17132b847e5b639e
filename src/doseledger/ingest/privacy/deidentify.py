"""De-identified copies: new names, linked UIDs, shifted dates, scanned again."""

from __future__ import annotations

import io
import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from doseledger.core.code import code_digest
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import atomic_path, sha256_of_json
from doseledger.core.project.protocol import Phi, Protocol
from doseledger.dicom.privacy.deidentify import Pseudonymiser, deidentify_dataset
from doseledger.dicom.privacy.phi import refuse_phi
from doseledger.dicom.source import SourceFile, in_file, lenient, read_source, scan_source, source_digest
from doseledger.dicom.values import text_of
from doseledger.ingest.pack import pack_case
from doseledger.ingest.privacy.key import KeyRow, read_key, write_key
from doseledger.ingest.raw import find_sources

SALT_BYTES = 32
# What cleans a file; another one may leave other things in it.
CLEANER = "doseledger.dicom.privacy.deidentify"
WRITTEN = ""
PART = ".part"


def read_salt(path: Path, out: Path | None = None) -> bytes:
    """Return the secret that pseudonyms are made with; a new one is drawn and written where there is none.

    Parameters
    ----------
    out
        Folder of the clean copies, if there is one.

    Raises
    ------
    BadInput
        If the file holds less than 16 bytes, or there is none and `out` holds cases that another one was made for.

    Notes
    -----
    Keep it out of the project and apart from the clean copy: with it a guessed patient id can be tested. Without it the
    same patient gets another pseudonym next time.
    """
    if not path.exists():
        if made := _cases_in(out):
            raise BadInput(
                f"{path}: no such file, and {out} holds {len(made)} clean cases that were made with a salt: with a new "
                "one their patients would be there twice, under other pseudonyms. Name that salt, or an empty folder"
            )
        with atomic_path(path) as part:
            part.touch(mode=0o600)
            part.write_bytes(secrets.token_bytes(SALT_BYTES))
    salt = path.read_bytes()
    if len(salt) < 16:
        raise BadInput(f"{path}: {len(salt)} bytes are no secret, wanted 16 or more; delete it to have one drawn")
    return salt


def _cases_in(out: Path | None) -> list[str]:
    """Names of the clean cases in a folder, suffix included."""
    there = sorted(out.iterdir()) if out is not None and out.is_dir() else []
    cases = [path for path in there if path.is_dir() or path.suffix == ".zip"]
    return [path.name for path in cases if not path.name.startswith(".")]


@dataclass(frozen=True)
class _Cohort:
    """What all cases of one run share."""

    out: Path
    phi: Phi
    salt: bytes
    rules_sha256: str
    rows: dict[str, KeyRow]
    keeps_key: bool


def deidentify(
    raw: Path, out: Path, protocol: Protocol, salt: bytes, tell: Callable[[str], None], key: Path | None = None
) -> list[str]:
    """Return the names of the cases that were written clean to `out`, each a folder or a zip as it came.

    Parameters
    ----------
    raw
        Folder with one folder or one zip a case.
    protocol
        Its `phi` block says what a pseudonym looks like and which attributes keep their value.
    salt
        Secret of this cohort, from `read_salt`.
    tell
        Called with one line a case; the old name is not repeated beside the new one.
    key
        Table of who is who, from `patient_key.key_beside`, by which a later run knows the cases again: unchanged ones
        are left as they are, changed ones replaced. Without it a case that is in `out` already is refused.

    Raises
    ------
    BadInput
        If `out` is `raw`, the protocol has no `phi` block, the key is of another salt, or several cases can't be made
        clean: the others are there then.
    BadCase
        If one case can't be made clean; the others are whole, nothing new of it is written.
    """
    if protocol.phi is None:
        raise BadInput(f"protocol {protocol.name} has no phi block; it says what a pseudonym looks like")
    if out.resolve() == raw.resolve():
        raise BadInput(f"{out}: the clean copy must not go where the raw data are")
    sources = find_sources(raw)
    rows = read_key(key)
    cohort = _Cohort(out, protocol.phi, salt, _rules(protocol.phi), rows, key is not None)
    _check_salt(cohort, key)
    for part in out.glob(f".*{PART}"):
        shutil.rmtree(part, ignore_errors=True)
    written: list[str] = []
    failed: list[BadCase] = []
    for index, (case_id, source) in enumerate(sources.items(), start=1):
        try:
            name, said = _bring_up_to_date(source, case_id, cohort)
        except BadCase as error:
            failed.append(error)
            name, said = "", f"not clean: {error.reason}"
        if said == WRITTEN:
            written.append(name)
            write_key(key, rows)
        tell(f"[{index}/{len(sources)}] {name}{': ' if name and said else ''}{said}")
    gone = sorted(row.clean for case_id, row in rows.items() if case_id not in sources and (out / row.clean).exists())
    if gone:
        tell(f"{len(gone)} clean cases have no raw case any more; delete them if that is meant: {', '.join(gone)}")
    strange = sorted(set(_cases_in(out)) - {row.clean for row in rows.values()}) if key is not None else []
    if strange:
        tell(
            f"{len(strange)} clean cases are not in the key, and may be patients a second time, under pseudonyms of "
            f"another salt: {', '.join(strange)}"
        )
    write_key(key, rows)
    if len(failed) == 1:
        raise failed[0]
    if failed:
        raise BadInput(f"{len(failed)} of {len(sources)} cases are not clean: {'; '.join(map(str, failed))}")
    return written


def _rules(phi: Phi) -> str:
    """Digest of what decides how a copy is cleaned: the protocol's rules and the code."""
    return sha256_of_json({"phi": phi.model_dump(mode="json"), "code": code_digest(CLEANER)})


def _check_salt(cohort: _Cohort, key: Path | None) -> None:
    for row in cohort.rows.values():
        if Pseudonymiser(cohort.salt, cohort.phi, row.patient_id).pseudonym != row.pseudonym:
            raise BadInput(
                f"{key} was made with another salt than this one: every patient would get another pseudonym. Take the "
                "salt that belongs to the key"
            )


def _bring_up_to_date(source: Path, case_id: str, cohort: _Cohort) -> tuple[str, str]:
    """The clean case's name without suffix, and what became of it."""
    row, raw_sha256 = cohort.rows.get(case_id), source_digest(source)
    if row is not None and (cohort.out / row.clean).exists():
        if source_digest(cohort.out / row.clean) != row.clean_sha256:
            raise BadCase(
                case_id, f"its clean copy {row.clean} was changed after it was written; move it away to have it anew"
            )
        if (row.raw_sha256, row.rules_sha256) == (raw_sha256, cohort.rules_sha256):
            return Path(row.clean).stem if source.is_file() else row.clean, "unchanged"
    with lenient():
        names, files = _identified(source, case_id, cohort)
        keeps_name = re.fullmatch(cohort.phi.pseudonym, case_id) is not None
        stem = case_id if keeps_name else names.pseudonym
        target = cohort.out / (stem if source.is_dir() else f"{stem}.zip")
        work = cohort.out / f".{stem}{PART}"
        try:
            _write_clean(files, names, case_id, work)
            refuse_phi(read_source(work)[0], cohort.phi, case_id)
            clean_sha256 = source_digest(work)
            if _may_take(target, case_id, clean_sha256, cohort):
                _put(work, target)
            if row is not None and row.clean != target.name:
                _remove(cohort.out / row.clean)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    cohort.rows[case_id] = KeyRow(
        case_id, names.patient_id, names.pseudonym, target.name, raw_sha256, clean_sha256, cohort.rules_sha256
    )
    return stem, WRITTEN


def _identified(source: Path, case_id: str, cohort: _Cohort) -> tuple[Pseudonymiser, list[SourceFile]]:
    """The patient's new identity, and the files, all of which can be read."""
    files = scan_source(source).files
    for file in files:
        if file.fault:
            raise BadCase(case_id, f"{file.label} {file.fault}")
    patient_ids = set()
    for file in files:
        with in_file(file.dataset, case_id):
            patient_ids.add(text_of(file.dataset, "PatientID"))
    patient_ids -= {""}
    if not patient_ids:
        raise BadCase(
            case_id,
            f"no PatientID in any of its {len(files)} files, and the pseudonym is made from it; export it again with "
            "one, or fill one in",
        )
    if len(patient_ids) != 1:
        raise BadCase(case_id, f"{len(patient_ids)} different PatientIDs in one case, wanted one; export them apart")
    return Pseudonymiser(cohort.salt, cohort.phi, patient_ids.pop()), files


def _write_clean(files: list[SourceFile], names: Pseudonymiser, case_id: str, work: Path) -> None:
    """Write clean copies of files; file names may hold a patient's name: they are replaced, in their old order."""
    work.mkdir(parents=True)
    for number, file in enumerate(files, start=1):
        stream = io.BytesIO()
        with in_file(file.dataset, case_id):
            clean = deidentify_dataset(file.dataset, names, case_id)
            kind = text_of(clean, "Modality")
            clean.save_as(stream, enforce_file_format=True)
        name = kind if re.fullmatch(r"[A-Z]{2,16}", kind) else "file"
        (work / f"{name}_{number:04d}.dcm").write_bytes(stream.getvalue())


def _may_take(target: Path, case_id: str, clean_sha256: str, cohort: _Cohort) -> bool:
    """Whether a clean copy must still be put in its place; refused where another case's is."""
    if not target.exists():
        return True
    owner = next((row.case_id for row in cohort.rows.values() if row.clean == target.name), None)
    if owner == case_id:
        return True
    if owner is None and cohort.keeps_key and source_digest(target) == clean_sha256:
        # Written before there was a key.
        return False
    raise BadCase(case_id, f"{target} is there already (two cases of one patient?); rename the raw case")


def _put(work: Path, target: Path) -> None:
    """Give a clean copy its place; what was there is gone only when the new one is whole."""
    if target.suffix == ".zip":
        pack_case(work, target)
        return
    old = target.with_name(f".{target.name}.old{PART}")
    if target.exists():
        target.rename(old)
    work.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _remove(path: Path) -> None:
    """Remove the clean copy that a case had under an identity that it no longer has."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

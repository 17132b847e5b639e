"""Damaged patients: DICOM-RT in its elements and bytes, zips of it, OpenKBP folders."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pydicom
from fuzz.damage import damage_bytes, damage_csv
from fuzz.kinds import Kind, Reader, Spoilt, Told, rewrite, silent
from pydicom.dataelem import RawDataElement

from doseledger.core.project.protocol import Protocol
from doseledger.evaluate.files.dvh import dvh_of_rtdose
from doseledger.evaluate.files.gamma import read_dose_file
from doseledger.evaluate.files.plan_dose import recompute_dose
from doseledger.ingest.openkbp import case as openkbp
from doseledger.ingest.openkbp.files import find_patients, read_dose_csv, read_patient
from doseledger.ingest.patient.case import Origin, convert_case
from doseledger.ingest.privacy.deidentify import deidentify
from doseledger.ingest.survey.cohort import survey_dump

CASE_ID = "anon_1"
# Pixel Data, as little-endian files begin it.
PIXELS = b"\xe0\x7f\x10\x00"
NUMBERS = ("DS", "IS", "US", "SS", "UL", "SL", "FD", "FL")
ODD_VALUES = (
    b"", b"xx", b"NaN ", b"1e400 ", b"-1", b"1,5 ", b"\xff\xff\xff\xff", b"0 ", b"9" * 14, b"\\\\\\ ", b"1\\2\\3 ",
    b"Roe^Anna", b"\x00\x00", b"1e-300", b"inf ", b"1_0 ", b"1.2.3.300.1 ", b"\xe9t\xe9 ", b"../../x ", b"9" * 70_000,
    b"1\\" * 9_000,
)  # fmt: skip


def dicom_kind(factory: ModuleType) -> Kind:
    """The tiny patient of tests/dicom, in a folder of his own."""
    allowed = [*factory.PROTOCOL["phi"]["allow"], {"keyword": "TreatmentMachineName", "reason": "the generic machine"}]
    phi = {**factory.PROTOCOL["phi"], "allow": allowed}
    protocol = Protocol.model_validate({**factory.PROTOCOL, "phi": phi})

    def make(folder: Path) -> None:
        patient = factory.make_patient()
        setup = pydicom.Dataset()
        setup.PatientSetupNumber, setup.PatientPosition = 1, "HFS"
        patient.rtplan.PatientSetupSequence = [setup]
        _put_on_machine(patient.rtplan.BeamSequence[0])
        patient.save(folder / CASE_ID)

    def convert(folder: Path, out: Path) -> Told:
        case = convert_case(next(folder.iterdir()), Origin(CASE_ID), protocol)
        names = ("ct_hu", "masks", "sdf_mm", "dose_gy", "body", "valid_dose", "grid", "prescription_gy", "n_fractions")
        plan = case.meta["plan"] or {}
        return Told({name: getattr(case, name) for name in names}, bool(case.meta["warnings"] or plan.get("faults")))

    def files(folder: Path, kind: str) -> Path:
        return next(iter(sorted(folder.rglob(f"{kind}*"))), folder / kind)

    readers: dict[str, Reader] = {
        "convert": convert,
        "recompute": lambda folder, out: recompute_dose(next(folder.iterdir())),
        "gamma": lambda folder, out: read_dose_file(files(folder, "RTDOSE")),
        "dvh": lambda folder, out: dvh_of_rtdose(files(folder, "RTSTRUCT"), files(folder, "RTDOSE"), ["mean", "D2%"]),
        "deidentify": lambda folder, out: deidentify(folder, out / "clean", protocol, b"s" * 32, silent),
        "survey": lambda folder, out: survey_dump(folder, protocol, pictures=True, tell=silent),
    }
    return Kind(make, _spoil_dicom, readers)


def _put_on_machine(beam: pydicom.Dataset) -> None:
    """Make a beam one of the generic machine, 60 leaf pairs of 10 and 5 mm, so that its dose can be computed again."""
    beam.TreatmentMachineName, mlc = "Generic120", beam.BeamLimitingDeviceSequence[2]
    edges = np.concatenate([[0], np.cumsum([10] * 10 + [5] * 40 + [10] * 10)]) - 200.0
    mlc.NumberOfLeafJawPairs, mlc.LeafPositionBoundaries = 60, list(edges)
    beam.ControlPointSequence[0].BeamLimitingDevicePositionSequence[2].LeafJawPositions = [-10.0] * 60 + [10.0] * 60


def _spoil_dicom(rng: random.Random, folder: Path) -> Spoilt:
    case, before = folder / CASE_ID, {}
    files = sorted(
        path for path in case.iterdir() if path.name.startswith(rng.choice(("CT", "RTDOSE", "RTPLAN", "RTSTRUCT")))
    )
    chosen = rng.sample(files, min(len(files), rng.choice((1, 1, 2))))
    words = []
    for path in chosen:
        before[path] = path.read_bytes()
        change = _damage_element if rng.random() < 0.55 else lambda rng, content: damage_bytes(rng, content, head=3000)
        words.append(rewrite(path, lambda content, change=change: change(rng, content)))  # type: ignore[misc]
    # Of two files each must show: nobody can see another value in the same place of the one that doesn't.
    shows = all(_shows(content, path.read_bytes()) for path, content in before.items())
    readers: tuple[str, ...] = ()
    if rng.random() < 0.15:
        readers = ("convert", "recompute", "deidentify", "survey")
        words.append(_pack(rng, case))
    # The survey of a dump names no folder: its name may be a patient's, and the words go into the audit log.
    named = (CASE_ID, *(path.name for path in files), str(folder), "files is DICOM; name the folder of an export")
    return Spoilt("; ".join(words), named, readers, shows and not readers)


def _shows(before: bytes, after: bytes) -> bool:
    """Whether all that was changed shows: elements came, went or have another type or count, and no other value is new.

    Nobody can see another value in the same place, as of a pixel.
    """
    try:
        old, new = _values_by_form(before), _values_by_form(after)
    except Exception:  # what pydicom can't read whole a reader can tell, but for other pixels
        pixels = before.rfind(PIXELS)
        return pixels < 0 or after.endswith(before[pixels:])
    return old.keys() != new.keys() and all(old[form] == new[form] for form in old.keys() & new.keys())


def _values_by_form(content: bytes) -> dict[tuple[Any, ...], list[str]]:
    found: dict[tuple[Any, ...], list[str]] = {}
    for element in pydicom.dcmread(io.BytesIO(content), force=True).iterall():
        text = "" if element.VR == "SQ" else repr(element.value)
        found.setdefault((element.tag, element.VR, element.VM), []).append(text)
    return found


def _damage_element(rng: random.Random, content: bytes) -> bytes:
    whole = pydicom.dcmread(io.BytesIO(content))
    inside = whole
    for _ in range(rng.randint(0, 4)):
        sequences = [element for element in inside if element.VR == "SQ" and element.value]
        if not sequences:
            break
        inside = rng.choice(rng.choice(sequences).value)
    tag = rng.choice(list(inside.keys()))
    element, kind = inside[tag], rng.randrange(7)
    if kind == 0:
        del inside[tag]
    elif kind in (1, 2):
        value = rng.choice(ODD_VALUES)
        value += b" " * (len(value) % 2)
        odd = rng.choice(("LO", "US", "DS", "UN", "FD", "SS", "OB", "UI", "IS", "PN", "UL", "AT", "SQ"))
        vr = odd if kind == 2 else element.VR if element.VR != "SQ" else "UN"
        inside._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    elif kind == 3 and element.VR == "SQ":
        items = list(element.value)
        inside[tag].value = rng.choice(([], items[:-1], [*items, *items], items[::-1]))
    elif kind == 4 and element.VR in NUMBERS:
        values = list(element.value) if element.VM > 1 else [element.value]
        values[rng.randrange(len(values))] = rng.choice(
            (0, 1, 2, 3, 255, 65535) if element.VR in ("US", "IS") else (0, -1, 3.5, 1e9)
        )
        element.value = values if len(values) > 1 else values[0]
    elif kind == 5:
        inside.add_new((0x0009, 0x1001), "LO", "Roe^Anna")
        inside.add_new((0x300A, 0x9999), "UN", b"\x01\x02")
    else:
        return content + _nested(rng.choice((300, 5_000, 50_000)))
    out = io.BytesIO()
    try:
        pydicom.dcmwrite(out, whole, enforce_file_format=False)
    except Exception:  # what pydicom does not write is damaged in its bytes instead
        return damage_bytes(rng, content, head=3000)
    return out.getvalue()


def _nested(depth: int) -> bytes:
    """Sequences of unknown length within each other."""
    begin = struct.pack("<HH2sHL", 0x300E, 0x0010, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    end = struct.pack("<HHL", 0xFFFE, 0xE00D, 0) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    return begin * depth + end * depth


def _pack(rng: random.Random, case: Path) -> str:
    """Put a case's folder into a zip of the same name, and damage that."""
    target, kind = case.with_suffix(".zip"), rng.randrange(7)
    contents = {path.name: path.read_bytes() for path in sorted(case.iterdir())}
    for path in sorted(case.iterdir()):
        path.unlink()
    case.rmdir()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED if kind == 0 else zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
        if kind == 1:
            archive.writestr("../../outside.dcm", contents["CT_000.dcm"])
        elif kind == 2:
            archive.writestr("/tmp/outside.dcm", contents["CT_000.dcm"])
        elif kind == 3:
            archive.writestr("inner.zip", b"PK\x03\x04" + rng.randbytes(200))
        elif kind == 4:
            with archive.open(zipfile.ZipInfo("bomb.dcm"), "w") as stream:
                stream.write(bytes(1 << 20))
    if kind > 4:
        rewrite(target, lambda content: damage_bytes(rng, content[-4000:]) if kind == 5 else damage_bytes(rng, content))
    return f"{target.name}: kind {kind}"


def openkbp_kind(protocol: Protocol) -> Kind:
    """A patient of boxes in the challenge's files."""

    def make(folder: Path) -> None:
        side, patient = 128, folder / "pt_7"
        patient.mkdir(parents=True)
        ct, body, target = np.zeros((side,) * 3), np.zeros((side,) * 3, bool), np.zeros((side,) * 3, bool)
        body[40:50, 60:72, 40:50] = True
        target[42:46, 64:68, 43:46] = True
        ct[body], dose = 1040.0, np.where(target, 70.0, np.where(body, 20.0, 0.0))
        for name, array, has_values in (
            ("ct", ct, True), ("dose", dose, True), ("possible_dose_mask", body, False), ("PTV70", target, False),
        ):  # fmt: skip
            index = np.flatnonzero(array)
            cells = [str(value) for value in array.ravel()[index]] if has_values else [""] * len(index)
            rows = "".join(f"{place},{cell}\n" for place, cell in zip(index, cells, strict=True))
            (patient / f"{name}.csv").write_text(f",data\n{rows}")
        (patient / "voxel_dimensions.csv").write_text("3.5\n4.0\n2.5\n")

    def spoil(rng: random.Random, folder: Path) -> Spoilt:
        path = rng.choice(sorted((folder / "pt_7").iterdir()))
        cuts = rng.random() < 0.3
        words = rewrite(path, lambda c: c[: rng.randrange(len(c))] if cuts else damage_csv(rng, c))
        return Spoilt(
            words, ("pt_7", path.name, str(folder)), shows=cuts and path.stem in ("ct", "dose", "possible_dose_mask")
        )

    def read(folder: Path, out: Path) -> Told:
        found = read_patient(find_patients(folder)["pt_7"], "pt_7")
        return Told(
            {"ct": found.ct_stored, "dose": found.dose_gy, "valid": found.valid_dose, **found.masks, "grid": found.grid}
        )

    readers: dict[str, Reader] = {
        "read": read,
        "dose": lambda folder, out: read_dose_csv(folder / "pt_7" / "dose.csv", "pt_7"),
        "convert": lambda folder, out: openkbp.convert_case(folder / "pt_7", Origin("pt_7"), protocol),
    }
    return Kind(make, spoil, readers)

"""A cohort made clean: names of folders and files too, and it ingests to the same case as before."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.protocol import Protocol
from doseledger.dicom.objects import to_bytes
from doseledger.ingest.case import Origin, convert_case
from doseledger.ingest.deidentify import deidentify, read_salt
from doseledger.ingest.pack import pack

SALT = b"s" * 32


def quiet(line: str) -> None:
    """Say nothing."""


@pytest.fixture
def protocol(factory) -> Protocol:
    return Protocol.model_validate(factory.PROTOCOL)


@pytest.fixture
def raw(factory, tmp_path):
    patient = factory.make_patient()
    for ds in patient.all:
        ds.PatientName, ds.PatientID, ds.StudyDate = "Doe^Jane", "123456", "20240229"
    patient.save(tmp_path / "raw" / "Doe_Jane")
    return tmp_path / "raw"


def test_a_clean_copy_ingests_to_the_same_volumes(raw, protocol, factory, tmp_path):
    with pytest.raises(BadCase, match="may identify the patient: StudyDate"):
        convert_case(raw / "Doe_Jane", Origin("anon_1"), protocol)
    (name,) = deidentify(raw, tmp_path / "clean", protocol, SALT, quiet)
    assert name.startswith("anon_")
    case = convert_case(tmp_path / "clean" / name, Origin(name), protocol)
    plain = convert_case(factory.make_patient().save(tmp_path / "plain"), Origin("anon_1"), protocol)
    for array in ("ct_hu", "masks", "sdf_mm", "dose_gy"):
        np.testing.assert_array_equal(getattr(case, array), getattr(plain, array))
    assert case.meta["pseudonym"] == name
    assert case.meta["warnings"] == []
    assert not any("Doe" in path.name for path in (tmp_path / "clean").rglob("*"))


def test_a_zip_stays_a_zip_and_a_pseudonymous_name_stays(raw, protocol, tmp_path):
    (raw / "Doe_Jane").rename(raw / "anon_77")
    pack(raw, tmp_path / "packed", tmp_path / "list.csv", quiet)
    assert deidentify(tmp_path / "packed", tmp_path / "clean", protocol, SALT, quiet) == ["anon_77"]
    assert [path.name for path in (tmp_path / "clean").iterdir()] == ["anon_77.zip"]


def test_a_value_that_cant_be_read_stops_its_case_and_is_not_repeated(raw, protocol, tmp_path):
    path = sorted((raw / "Doe_Jane").rglob("CT*"))[0]
    dataset = pydicom.dcmread(path)
    dataset.PatientSize = "1.80"
    content = to_bytes(dataset)
    assert b"DS\x04\x001.80" in content
    path.write_bytes(content.replace(b"DS\x04\x001.80", b"FD\x04\x00Anna"))
    for stopped in (
        lambda: deidentify(raw, tmp_path / "clean", protocol, SALT, quiet),
        lambda: convert_case(raw / "Doe_Jane", Origin("anon_1"), protocol),
    ):
        with pytest.raises(BadCase, match="BytesLengthException") as refused:
            stopped()
        assert "Anna" not in str(refused.value)
    assert not list((tmp_path / "clean").iterdir())


def test_two_patients_in_a_case_write_nothing(raw, protocol, factory, tmp_path):
    other = factory.make_patient()
    other.rtplan.save_as(raw / "Doe_Jane" / "other.dcm", enforce_file_format=True)
    with pytest.raises(BadCase, match="2 different PatientIDs in one case"):
        deidentify(raw, tmp_path / "clean", protocol, SALT, quiet)
    assert not (tmp_path / "clean").exists()


def test_a_case_is_never_written_over_another(raw, protocol, tmp_path):
    deidentify(raw, tmp_path / "clean", protocol, SALT, quiet)
    with pytest.raises(BadCase, match="is there already"):
        deidentify(raw, tmp_path / "clean", protocol, SALT, quiet)


def test_the_raw_folder_is_never_the_target(raw, protocol):
    with pytest.raises(BadInput, match="must not go where the raw data are"):
        deidentify(raw, raw, protocol, SALT, quiet)


def test_the_salt_is_drawn_once_kept_private_and_long_enough(tmp_path):
    path = tmp_path / "keys" / "salt"
    salt = read_salt(path)
    assert len(salt) == 32
    assert read_salt(path) == salt
    assert path.stat().st_mode & 0o077 == 0
    path.write_bytes(b"short")
    with pytest.raises(BadInput, match="5 bytes are no secret"):
        read_salt(path)

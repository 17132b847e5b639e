"""A cohort made clean: names of folders and files too, and it ingests to the same case as before."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.project.protocol import Protocol
from doseledger.dicom.write.objects import to_bytes
from doseledger.ingest.pack import pack
from doseledger.ingest.patient.case import Origin, convert_case
from doseledger.ingest.privacy.deidentify import deidentify, read_salt
from doseledger.ingest.privacy.key import key_beside, read_key

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


@pytest.fixture
def cohort(factory, tmp_path, protocol):
    """Three raw patients, and a run of `deidentify` that keeps a key; it returns what was written and said."""
    raw, key = tmp_path / "raw", key_beside(tmp_path / "secret" / "salt", tmp_path / "clean")

    def add(name: str, patient_id: str, **changes) -> None:
        # A scan of two slices is cheap; whether it is a whole patient is not asked here.
        patient = factory.make_patient()
        patient.ct = patient.ct[:2]
        for ds in patient.all:
            ds.PatientName, ds.PatientID, ds.StudyDate = "Doe^Jane", patient_id, "20240229"
            for keyword, value in changes.items():
                setattr(ds, keyword, value)
        patient.save(raw / name)

    def run(salt: bytes = SALT) -> tuple[list[str], list[str]]:
        said: list[str] = []
        return deidentify(raw, tmp_path / "clean", protocol, salt, said.append, key), said

    for number in (1, 2, 3):
        add(f"case_{number}", f"ID-{number}")
    return add, run, raw, tmp_path / "clean", key


def test_a_second_run_leaves_unchanged_patients_replaces_a_mended_one_and_adds_a_new_one(cohort):
    add, run, _, clean, key = cohort
    first, _ = run()
    assert len(first) == 3
    times = {path: path.stat().st_mtime_ns for path in clean.rglob("*.dcm")}
    again, said = run()
    assert again == []
    assert sum(line.endswith(": unchanged") for line in said) == 3
    add("case_2", "ID-2", Manufacturer="ACME")
    add("case_4", "ID-4")
    written, _ = run()
    assert len(written) == 2
    assert written[0] in first
    assert {path.name for path in clean.iterdir()} == {*first, written[1]}
    changed = {path.parent.name for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert changed == {written[0]}
    assert pydicom.dcmread(next((clean / written[0]).glob("CT*"))).Manufacturer == "ACME"
    rows = read_key(key)
    assert {row.patient_id for row in rows.values()} == {"ID-1", "ID-2", "ID-3", "ID-4"}
    assert {row.clean for row in rows.values()} == {*first, written[1]}


def test_the_key_is_private_and_never_in_the_clean_folder(cohort, tmp_path):
    _, run, _, clean, key = cohort
    run()
    assert key.stat().st_mode & 0o777 == 0o600
    assert not any("ID-" in path.read_bytes().decode("latin-1") for path in clean.rglob("*") if path.is_file())
    with pytest.raises(BadInput, match="must not lie in the clean folder"):
        key_beside(clean / "deep" / "salt", clean)


def test_one_bad_patient_does_not_keep_the_others_from_being_cleaned(cohort):
    add, run, raw, clean, _ = cohort
    add("case_2", "")
    with pytest.raises(BadCase, match=r"case_2: no PatientID in any of its 5 files, and the pseudonym is made from it"):
        run()
    assert len(list(clean.iterdir())) == 2
    file = sorted((raw / "case_3").iterdir())[0]
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(BadInput, match=r"2 of 3 cases are not clean: .*; case_3: CT_000\.dcm is cut short: PixelData"):
        run()


def test_spaces_around_a_patient_id_are_padding(cohort):
    _, run, raw, _, _ = cohort
    (name, *_), _ = run()
    file = sorted((raw / "case_1").iterdir())[0]
    dataset = pydicom.dcmread(file)
    dataset.PatientID = "  ID-1"
    dataset.save_as(file)
    assert run()[0] == [name]


def test_two_raw_cases_of_one_patient_are_told(cohort):
    add, run, _, clean, _ = cohort
    add("case_4", "ID-1")
    with pytest.raises(BadCase, match=r"case_4: .*two cases of one patient"):
        run()
    assert len(list(clean.iterdir())) == 3


def test_a_mended_patient_id_takes_its_old_clean_copy_along(cohort):
    add, run, _, clean, _ = cohort
    first, _ = run()
    add("case_1", "ID-9")
    (name,), _ = run()
    assert {path.name for path in clean.iterdir()} == {name, *first} - {first[0]} | {name}
    assert len(list(clean.iterdir())) == 3


def test_a_clean_copy_that_somebody_edited_is_not_overwritten(cohort):
    _, run, _, clean, _ = cohort
    first, _ = run()
    (clean / first[1] / "note.txt").write_text("looked at")
    with pytest.raises(BadCase, match="was changed after it was written"):
        run()
    assert (clean / first[1] / "note.txt").exists()


def test_a_raw_case_that_is_gone_is_told_and_its_copy_stays(cohort):
    import shutil

    _, run, raw, clean, _ = cohort
    run()
    shutil.rmtree(raw / "case_3")
    _, said = run()
    assert any("1 clean cases have no raw case any more" in line for line in said)
    assert len(list(clean.iterdir())) == 3


def test_another_salt_than_the_keys_is_refused(cohort):
    _, run, _, _, _ = cohort
    run()
    with pytest.raises(BadInput, match="was made with another salt"):
        run(b"t" * 32)


def test_no_new_salt_is_drawn_for_a_folder_that_holds_clean_cases(tmp_path):
    (tmp_path / "clean" / "anon_1").mkdir(parents=True)
    with pytest.raises(BadInput, match="holds 1 clean cases that were made with a salt: with a new one their patients"):
        read_salt(tmp_path / "salt", tmp_path / "clean")
    assert not (tmp_path / "salt").exists()
    assert len(read_salt(tmp_path / "salt", tmp_path / "empty")) == 32


def test_clean_cases_that_the_key_does_not_know_are_told(cohort):
    _, run, _, clean, key = cohort
    run()
    key.unlink()
    (clean / "anon_of_another_salt").mkdir()
    _, said = run()
    assert [line for line in said if "not in the key" in line] == [
        "1 clean cases are not in the key, and may be patients a second time, under pseudonyms of another salt: "
        "anon_of_another_salt"
    ]

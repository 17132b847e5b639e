"""A case's raw files, as far as they can be read, and whose fault it is where they can't."""

from __future__ import annotations

import io
import pickle
import random
import struct
import tracemalloc
import warnings
import zipfile

import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from doseledger.core.errors import BadCase, BadInput
from doseledger.dicom.files import headers, members, parse
from doseledger.dicom.source import (
    malformed_as_bad_case,
    parse_dataset,
    read_file,
    read_members,
    scan_source,
    source_digest,
)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_zip_is_refused_however_it_was_compressed(compression, tmp_path):
    path = tmp_path / "case_1.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a.dcm", bytes(random.Random(1).choices(b"dose", k=8000)))
    content = bytearray(path.read_bytes())
    content[40:140] = b"\xff" * 100
    path.write_bytes(content)
    with pytest.raises(BadCase, match=r"case_1: case_1.zip can't be read as a zip .* pack it again"):
        source_digest(path)


def test_what_breaks_the_standard_is_the_cases_fault_and_its_value_is_not_repeated():
    with (
        pytest.raises(BadCase, match=r"case_1: malformed DICOM \(ValueError\); export") as refused,
        malformed_as_bad_case("case_1"),
    ):
        raise ValueError("could not convert string to float: 'Anna'")
    assert "Anna" not in str(refused.value)


def test_a_refusal_and_a_fault_that_no_file_can_cause_pass_as_they_are():
    for error in (BadCase("case_2", "tilted"), MemoryError("full")):
        with pytest.raises(type(error)) as passed, malformed_as_bad_case("case_1"):
            raise error
        assert passed.value is error


def packed(path, *names: str):
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            archive.writestr(name, b"x")
    return path


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a.dcm", "a.dcm"), "has 1 names twice, and which file counts can't be told"),
        (("x/a.dcm", "x//a.dcm"), "has 1 names twice"),
        (("Doe/a.dcm", "/etc/Doe"), r"has 1 names that lead out of it \(absolute, or with \.\.\)"),
        (("Doe/a.dcm", "../Doe", "C:\\\\Doe"), "has 2 names that lead out of it"),
    ],
)
def test_a_zip_with_names_that_are_no_files_of_its_own_is_refused(names, message, tmp_path):
    path = packed(tmp_path / "case_1.zip", *names)
    for read in (source_digest, scan_source, lambda source: list(read_members(source))):
        with pytest.raises(BadCase, match=f"case_1.zip {message}") as refused:
            read(path)
        assert "Doe" not in str(refused.value)


def test_a_zip_that_unpacks_to_a_thousand_times_its_size_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "case_1.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.dcm", "w", force_zip64=True) as member,
    ):
        for _ in range(300):
            member.write(bytes(1 << 20))
    with pytest.raises(BadCase, match=r"case_1.zip: .* bytes would unpack to 314572800"):
        source_digest(path)


def test_a_file_that_is_too_large_for_a_patient_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(members, "LARGEST_FILE_BYTES", 100)
    (tmp_path / "case_1").mkdir()
    (tmp_path / "case_1" / "a.dcm").write_bytes(bytes(101))
    with pytest.raises(BadCase, match="case_1 holds a file of 101 bytes, at most 100 are read"):
        source_digest(tmp_path / "case_1")


def as_file(dataset: pydicom.Dataset) -> bytes:
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def test_a_deflated_data_set_is_read_and_one_without_end_is_not(factory, monkeypatch):
    dataset = factory.make_patient().rtplan
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    content = as_file(dataset)
    assert parse_dataset(content).RTPlanLabel == ""
    monkeypatch.setattr(parse, "ALWAYS_ALLOWED_BYTES", 100)
    monkeypatch.setattr(parse, "MOST_GROWTH", 0)
    assert parse_dataset(content) is None
    dataset, fault = parse.parse_file(content)
    assert dataset is None
    assert "can't be read to its end" in fault


@pytest.mark.parametrize("kind", ["rtstruct", "rtdose", "rtplan"])
def test_a_file_cut_anywhere_says_so_or_lacks_what_it_needs(factory, tmp_path, kind):
    content = as_file(getattr(factory.make_patient(), kind))
    whole, fault = parse.parse_file(content)
    assert (whole is not None, fault) == (True, "")
    told = 0
    places = random.Random(3).sample(range(600, len(content)), 60)
    for place in places:
        (tmp_path / "a.dcm").write_bytes(content[:place])
        try:
            read_file(tmp_path / "a.dcm", kind.upper())
        except BadInput as error:
            told += "a.dcm" in str(error)
    # Between two attributes nothing shows that more should follow.
    assert told >= 55


def test_a_cut_file_is_known_by_its_header(factory, tmp_path):
    patient = factory.make_patient()
    folder = patient.save(tmp_path / "anon_1")
    path = folder / "RTSTRUCT_020.dcm"
    path.write_bytes(path.read_bytes()[:-700])
    scan = scan_source(folder)
    (broken,) = [file for file in scan.files if file.fault]
    assert broken.label == "RTSTRUCT_020.dcm"
    assert broken.dataset.Modality == "RTSTRUCT"
    assert broken.fault.startswith("is cut short: ") or "can't be read to its end" in broken.fault


def test_copies_count_once_and_links_are_read_and_listed(factory, tmp_path):
    folder = factory.make_patient().save(tmp_path / "anon_1")
    (folder / "CT_000 copy.dcm").write_bytes((folder / "CT_000.dcm").read_bytes())
    (folder / "CT_001.dcm").rename(tmp_path / "elsewhere.dcm")
    (folder / "CT_001.dcm").symlink_to(tmp_path / "elsewhere.dcm")
    (folder / "more").symlink_to(tmp_path)
    (folder / "empty.dcm").write_bytes(b"")
    scan = scan_source(folder)
    assert len(scan.files) == 23
    assert scan.strangers == ["empty.dcm"]
    assert scan.notes == [
        "1 files are symbolic links: what they point to may change unseen",
        "1 symbolic links to folders, or to nothing, were left out",
        "1 files are copies of others, byte for byte, and count once",
    ]


def test_a_type_that_does_not_exist_is_a_file_that_can_not_be_read(factory):
    content = as_file(factory.make_patient().rtplan)
    at = content.index(b"\x0a\x30\x70\x00SQ") + 4
    dataset, fault = parse.parse_file(content[:at] + b"S\x8a" + content[at + 2 :])
    assert dataset.Modality == "RTPLAN"
    assert fault.startswith(("can't be read to its end", "is cut short"))


@pytest.mark.parametrize("length", [0xFFFFFFF0, 0x7FFFFFFF, 0x10000000])
def test_a_length_beyond_the_file_takes_no_memory_for_it(factory, tmp_path, length):
    content = as_file(factory.make_patient().ct[0])
    element = struct.pack("<HH2sHL", 0x0009, 0x1001, b"UN", 0, length)
    at = content.index(struct.pack("<HH2s", 0x0010, 0x0010, b"PN"))
    (tmp_path / "a.dcm").write_bytes(content[:at] + element + content[at:])
    (file,) = headers.walk_dump(tmp_path)
    tracemalloc.start()
    headers.read_header(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 << 20


def test_a_deflated_file_that_fills_the_memory_has_no_header(factory, tmp_path, monkeypatch):
    dataset = factory.make_patient().rtplan
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    (tmp_path / "a.dcm").write_bytes(as_file(dataset))
    (file,) = headers.walk_dump(tmp_path)
    assert headers.read_header(file)[0].Modality == "RTPLAN"
    monkeypatch.setattr(parse, "ALWAYS_ALLOWED_BYTES", 100)
    monkeypatch.setattr(parse, "MOST_GROWTH", 0)
    assert headers.read_header(file) == (None, False)


def test_the_header_of_a_file_in_a_zip_goes_to_another_process(factory, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.dcm", as_file(factory.make_patient().rtplan))
    (file,) = headers.walk_dump(tmp_path)
    header, _ = headers.read_header(file)
    assert pickle.loads(pickle.dumps(header)).Modality == "RTPLAN"


def test_a_zip_that_was_replaced_is_read_anew(factory, tmp_path):
    content = as_file(factory.make_patient().rtplan)
    for held in ({"a.dcm": content}, {"b.dcm": content, "note.txt": b"x" * 500}, {"a.dcm": b"nonsense" * 100}):
        with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
            for name, data in held.items():
                archive.writestr(name, data)
        (tmp_path / "new.zip").replace(tmp_path / "case.zip")
        files = list(headers.walk_dump(tmp_path))
        assert {file.member: file.read() for file in files} == held


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        (["a.txt"], "export the patient again"),
        (["b.zip"], "name the zip itself (b.zip)"),
        (["a.txt", "b.ZIP", "c.zip"], "name the zip itself (b.ZIP and 1 more)"),
    ],
)
def test_a_folder_of_zips_where_a_patient_is_wanted_is_told_to_name_the_zip(names, advice, tmp_path):
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    with pytest.raises(BadCase) as refused:
        scan_source(tmp_path)
    assert refused.value.reason == f"none of the {len(names)} files is DICOM; {advice}"

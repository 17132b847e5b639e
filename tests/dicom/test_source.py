"""A case's raw files, as far as they can be read, and whose fault it is where they can't."""

from __future__ import annotations

import random
import zipfile

import pytest

from doseledger.core.errors import BadCase
from doseledger.dicom.source import malformed_as_bad_case, source_digest


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

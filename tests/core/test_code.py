from __future__ import annotations

from doseledger.core.code import reached_code


def test_code_that_is_reached_is_found_through_imports_inside_functions_too() -> None:
    converter = reached_code("doseledger.cohort.convert")
    assert {"doseledger.cohort.convert", "doseledger.dicom.contours", "doseledger.core.files"} <= set(converter)
    assert not [name for name in converter if name.startswith(("doseledger.learn", "doseledger.gates"))]
    assert all(len(digest) == 64 for digest in converter.values())


def test_a_module_that_is_imported_from_its_package_is_reached() -> None:
    assert {"doseledger.cohort.convert", "doseledger.cohort.openkbp"} <= set(reached_code("doseledger.cohort.ingest"))


def test_packages_and_other_peoples_modules_are_left_out() -> None:
    assert set(reached_code("doseledger.core.files", "numpy", "doseledger.core")) == {
        "doseledger.core.files",
        "doseledger.core.errors",
    }

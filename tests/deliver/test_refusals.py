"""Refusals of what goes back to the clinic: what was found, what was wanted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from doseledger.core.case import write_npz
from doseledger.core.errors import BadCase, BadInput
from doseledger.deliver import masks
from doseledger.deliver.dose import _dicom_of
from doseledger.deliver.nifti import _refuse_other_scale
from doseledger.deliver.patient import protocol_of_prediction
from doseledger.deliver.structures import check_formats


@pytest.mark.parametrize(("labels", "found"), [
    (np.array([[[0, 3]]], np.uint8), "label 3"), (np.array([[[0, 1]]], np.int16), r"int16 \(1, 1, 2\)"),
    (np.array([[0, 1]], np.uint8), r"uint8 \(1, 2\)"),
])  # fmt: skip
def test_labels_of_no_name_are_refused(labels: Any, found: str) -> None:
    with pytest.raises(BadCase, match=f"labels hold {found} for 2 names, wanted 0 to 2 as uint8"):
        masks._of_labels("case_1", labels, 2)
    kept = masks._of_labels("case_1", np.array([[[0, 2, 1]]], np.uint8), 2)
    assert kept.tolist() == [[[[False, False, True]]], [[[False, True, False]]]]


def test_a_file_without_masks_says_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "case_1.npz"
    write_npz(path, {"spacing_mm": np.ones(3), "dose_gy": np.zeros((1, 1, 1))})
    words = "case_1.npz has no masks and no structure_names and no origin_mm; it holds dose_gy, spacing_mm"
    with pytest.raises(BadCase, match=words):
        masks.read_masks(path)


@pytest.mark.parametrize(("source", "modality", "is_taken"), [
    ("dicom", "CT", True), ("dicom", "MR", False), ("nifti", "MR", True),
])  # fmt: skip
def test_a_nifti_file_is_not_of_a_scanners_units(source: str, modality: str, is_taken: bool) -> None:
    protocol: Any = SimpleNamespace(source=source, modality=modality, name="brain")
    if is_taken:
        _refuse_other_scale(protocol)
        return
    with pytest.raises(BadInput, match="protocol brain reads MR of DICOM in the scanner's units"):
        _refuse_other_scale(protocol)


def test_a_prescription_to_no_target_names_the_targets() -> None:
    protocol: Any = SimpleNamespace(source="dicom", target_names=("PTV70", "PTV56"), name="prostate")
    with pytest.raises(BadInput, match="--prescription names GTV, Liver; targets of prostate: PTV70, PTV56"):
        protocol_of_prediction(protocol, {"Liver": 1.0, "GTV": 60.0}, None)
    other: Any = SimpleNamespace(source="nifti", name="spleen")
    with pytest.raises(BadInput, match="protocol spleen reads nifti, no DICOM; wanted a clinic's protocol"):
        protocol_of_prediction(other, {}, None)


def test_formats_are_named_once_and_all_are_meant_where_none_is() -> None:
    everything = check_formats([])
    assert check_formats([*everything[::-1], everything[0]]) == everything
    assert check_formats(["seg"]) == ("seg",)
    with pytest.raises(BadInput, match=f"--format 'stl': wanted {' or '.join(everything)}"):
        check_formats(["seg", "stl"])


def test_a_dose_is_not_written_for_a_patient_without_structures() -> None:
    case: Any = SimpleNamespace(case_id="case_1")
    objects: Any = SimpleNamespace(rtstruct=None)
    nothing: Any = None
    with pytest.raises(BadCase, match="case_1: no RTSTRUCT among the files; export the patient whole"):
        _dicom_of(case, np.zeros((1, 1, 1), np.float32), objects, nothing, "0")

"""Gamma of two files as a page, a PDF and an RTDOSE that a viewer can lay over the dose."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from fixtures.known import assert_known, assert_known_page
from typer.testing import CliRunner

from doseledger.cli.app import app
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import sha256_of_file
from doseledger.core.grid import Grid
from doseledger.dicom.read_dose import read_dose
from doseledger.dicom.write.objects import Study, make_uid, to_bytes
from doseledger.dicom.write.volumes import make_dose
from doseledger.dosimetry.gamma.criteria import GammaCriteria
from doseledger.evaluate.files.gamma import compare_doses, require_rtdose, write_gamma_map
from doseledger.report.figures.gamma_figure import plot_gamma
from doseledger.report.figures.style import house_style

GRID = Grid((6, 9, 12), (3.0, 2.5, 2.5), (-40.0, 12.5, -31.25))
CRITERIA = GammaCriteria(3, 3, 10, local=False, interp_fraction=5, max_gamma=2.0)


@pytest.fixture
def doses(tmp_path: Path) -> tuple[Path, Path]:
    """An RTDOSE that rises along x from below the cutoff on, and one in which a corner is 10 % hotter."""
    study = Study("4711", "Müller^Jörg", "M", make_uid("study"), make_uid("frame"), "HFS", "a test")
    along_gy = np.concatenate([[1.0], np.linspace(60.0, 70.0, GRID.shape_zyx[2] - 1)])
    dose_gy = np.broadcast_to(along_gy, GRID.shape_zyx).astype(np.float32)
    other_gy = dose_gy.copy()
    other_gy[4:, 6:, 8:] *= np.float32(1.1)
    paths = tmp_path / "plan.dcm", tmp_path / "recomputed.dcm"
    for path, dose in zip(paths, (dose_gy, other_gy), strict=True):
        dataset = make_dose(study, dose, GRID, bits=16)
        item = pydicom.Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.5", make_uid("plan")
        dataset.ReferencedRTPlanSequence = [item]
        dataset.SOPInstanceUID = make_uid(path.name)
        path.write_bytes(to_bytes(dataset))
    return paths


def written(doses: tuple[Path, Path], out: Path) -> tuple[Any, pydicom.Dataset]:
    compared = compare_doses(*doses, CRITERIA, engine="sampled", verify=0)
    write_gamma_map(compared, require_rtdose(doses[0]), out)
    return compared, pydicom.dcmread(out)


def test_the_map_comes_back_from_its_rtdose_to_half_a_stored_unit_and_lies_where_it_was(
    doses: tuple[Path, Path], tmp_path: Path
) -> None:
    compared, dataset = written(doses, tmp_path / "gamma.dcm")
    stored = dataset.pixel_array * float(dataset.DoseGridScaling)
    wanted = np.nan_to_num(compared.gamma, nan=0.0)
    assert wanted.max() > 1.5
    assert np.isnan(compared.gamma).any()
    assert np.abs(stored - wanted).max() <= 0.5 * float(dataset.DoseGridScaling) + 1e-9
    # Read by another hand than ours: the position of the first voxel, the spacing, the planes.
    assert [float(value) for value in dataset.ImagePositionPatient] == pytest.approx([-31.25, 12.5, -40.0])
    assert [float(value) for value in dataset.PixelSpacing] == [2.5, 2.5]
    assert [float(value) for value in dataset.GridFrameOffsetVector] == pytest.approx(3.0 * np.arange(6))


def test_nobody_who_wants_gy_takes_the_map_for_a_dose(doses: tuple[Path, Path], tmp_path: Path) -> None:
    _, dataset = written(doses, tmp_path / "gamma.dcm")
    assert (dataset.DoseUnits, dataset.DoseType, dataset.DoseSummationType) == ("RELATIVE", "ERROR", "PLAN")
    with pytest.raises(BadCase, match="RELATIVE"):
        read_dose(dataset, "gamma")
    assert dataset.DoseComment == "gamma 3 %/3 mm global, cutoff 10 %; 0 also where there is none"


def test_the_map_belongs_to_the_references_patient_study_frame_and_plan(
    doses: tuple[Path, Path], tmp_path: Path
) -> None:
    reference = pydicom.dcmread(doses[0])
    _, dataset = written(doses, tmp_path / "gamma.dcm")
    for name in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "ReferencedRTPlanSequence"):
        assert dataset[name].value == reference[name].value, name
    assert dataset.SOPInstanceUID != reference.SOPInstanceUID
    before = (tmp_path / "gamma.dcm").read_bytes()
    written(doses, tmp_path / "gamma.dcm")
    assert (tmp_path / "gamma.dcm").read_bytes() == before


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is absent (Debian package dicom3tools)")
def test_a_validator_of_dicom_finds_no_error_in_the_map(doses: tuple[Path, Path], tmp_path: Path) -> None:
    written(doses, tmp_path / "gamma.dcm")
    said = subprocess.run(["dciodvfy", "-new", tmp_path / "gamma.dcm"], capture_output=True, text=True)
    assert [line for line in (said.stdout + said.stderr).splitlines() if "Error" in line] == []


def test_a_reference_that_names_no_patient_or_is_a_plane_has_no_map(doses: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"case\.npz is an NPZ; wanted as reference the RTDOSE of a volume"):
        require_rtdose(tmp_path / "case.npz")
    plane = pydicom.dcmread(doses[0])
    plane.NumberOfFrames = 1
    (tmp_path / "plane.dcm").write_bytes(to_bytes(plane))
    with pytest.raises(BadInput, match="is a single plane; wanted the RTDOSE of a volume"):
        require_rtdose(tmp_path / "plane.dcm")
    unlinked = pydicom.dcmread(doses[0])
    del unlinked.StudyInstanceUID
    compared = compare_doses(*doses, CRITERIA, engine="sampled", verify=0)
    with pytest.raises(BadInput, match="the reference has no StudyInstanceUID: a gamma map could not be linked"):
        write_gamma_map(compared, unlinked, tmp_path / "none.dcm")


def test_the_command_writes_page_pdf_and_map_and_the_page_names_no_patient(
    doses: tuple[Path, Path], tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(repository / name, tmp_path)
    shutil.copytree(repository / "reports/templates", tmp_path / "reports/templates")
    monkeypatch.chdir(tmp_path)
    words = ["dose", "gamma", *map(str, doses), "--interp", "5"]
    done = CliRunner().invoke(app, [*words, "--page", "out/report.html", "--rtdose", "out/map.dcm"])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "out/report.html").read_text()
    assert (tmp_path / "out/report.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "out/map.dcm").is_file()
    percent = re.search(r"([\d.]+) % of 594 points pass", done.output)
    assert percent is not None
    assert f"{percent[1]} % of 594 points pass gamma 3 %/3 mm global, cutoff 10 %." in page
    assert all(sha256_of_file(path) in page for path in doses)
    known = Path(__file__).parent / "known"
    assert_known_page(known / "gamma.txt", page)
    assert_known(known / "gamma_told.txt", done.output)
    assert "ller" not in page
    assert "4711" not in page
    wrong = CliRunner().invoke(app, [*words, "--page", "out/report.pdf"])
    assert isinstance(wrong.exception, BadInput)
    assert "wanted a name that ends in .html" in str(wrong.exception)


def test_two_planes_have_a_page_of_one_row(tmp_path: Path, repository: Path) -> None:
    from doseledger.report.gamma import gamma_context

    for name, factor in (("one", 1.0), ("two", 1.02)):
        dose = factor * np.linspace(10, 60, 120, dtype=np.float32).reshape(1, 10, 12)
        np.savez(tmp_path / f"{name}.npz", dose_gy=dose.astype(np.float32), spacing_mm=(3.0, 2.5, 2.5),
                 origin_mm=(0.0, 0.0, 0.0))  # fmt: skip
    files = (tmp_path / "one.npz", tmp_path / "two.npz")
    compared = compare_doses(*files, CRITERIA, engine="sampled", verify=0)
    assert compared.gamma.shape == (1, 10, 12)
    context = gamma_context(compared, files, 60)
    assert context["slices"].uri.startswith("data:image/png")
    assert context["levels"].rows


def test_the_scale_bar_is_light_on_the_dose_and_dark_on_the_light_maps(doses: tuple[Path, Path]) -> None:
    compared = compare_doses(*doses, CRITERIA, engine="sampled", verify=0)
    with house_style():
        figure = plot_gamma(compared)
    inks = [axis.lines[-1].get_color() for axis in figure.axes if axis.lines]
    assert inks[:3] == ["#FFFFFF", "#222222", "#222222"]
    assert set(inks) == {"#FFFFFF", "#222222"}

"""Gamma of two dose files: engines, verification, planes and volumes, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from doseledger.cli.app import app
from doseledger.core.case import Case
from doseledger.core.errors import BadInput, NotReady
from doseledger.dosimetry.gamma.criteria import GammaCriteria
from doseledger.dosimetry.gamma.gpu import torch_map
from doseledger.evaluate.files import gamma as dose_gamma
from doseledger.evaluate.files.gamma import gamma_of_files, has_gpu, read_dose_file

CRITERIA = GammaCriteria(3, 3, 10, local=False, interp_fraction=5, max_gamma=2.0)


@pytest.fixture
def pair_of_files(tmp_path: Path, make_case: Callable[..., Case]) -> tuple[Path, Path]:
    """A case, and a prediction of it that is 2 % too high."""
    case = make_case()
    case.save(tmp_path / "case_0001.npz")
    grid = case.grid
    np.savez(
        tmp_path / "predicted.npz", dose_gy=case.dose_gy * np.float32(1.02), spacing_mm=grid.spacing_mm,
        origin_mm=grid.origin_mm,
    )  # fmt: skip
    return tmp_path / "case_0001.npz", tmp_path / "predicted.npz"


@pytest.mark.parametrize("engine", ["auto", "sampled", "pymedphys"])
def test_engines_with_the_same_samples_give_the_same_numbers(pair_of_files, engine) -> None:
    wanted = gamma_of_files(*pair_of_files, CRITERIA, engine="sampled", verify=0)
    found = gamma_of_files(*pair_of_files, CRITERIA, engine=engine, verify=0)
    assert found["pass_rate_percent"] == wanted["pass_rate_percent"] == 100.0
    assert found["mean_gamma"] == pytest.approx(wanted["mean_gamma"], abs=1e-12)
    assert wanted["highest_gamma"] <= 2 / 3 + 1e-5  # float32 rounds the 2 %


def test_the_exact_engine_is_never_above_the_sampled_one(pair_of_files) -> None:
    sampled = gamma_of_files(*pair_of_files, CRITERIA, engine="sampled", verify=0)
    exact = gamma_of_files(*pair_of_files, CRITERIA, engine="exact", verify=0)
    assert 0 < exact["mean_gamma"] <= sampled["mean_gamma"] + 1e-4
    assert exact["engine"] == "exact"


def test_verification_against_pymedphys_is_told(pair_of_files) -> None:
    found = gamma_of_files(*pair_of_files, CRITERIA, engine="sampled", verify=5)
    assert found["largest_difference_from_pymedphys"] < 1e-10


def test_auto_takes_the_gpu_for_a_volume_where_there_is_one(pair_of_files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dose_gamma, "has_gpu", lambda: True)
    monkeypatch.setitem(dose_gamma.ENGINES, "torch", lambda *args: torch_map(*args, device="cpu"))
    found = gamma_of_files(*pair_of_files, CRITERIA, engine="auto", verify=5)
    assert found["engine"] == "torch"
    assert found["largest_difference_from_pymedphys"] < 1e-4
    wanted = gamma_of_files(*pair_of_files, CRITERIA, engine="sampled", verify=0)
    assert found["mean_gamma"] == pytest.approx(wanted["mean_gamma"], abs=1e-10)


def test_pytorch_is_asked_for_a_gpu_only_where_a_driver_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: not asked.append(True))
    monkeypatch.setattr(dose_gamma, "DRIVERS", (tmp_path / "absent",))
    assert not has_gpu()
    assert not asked
    monkeypatch.setattr(dose_gamma, "DRIVERS", (tmp_path / "absent", tmp_path))
    assert has_gpu()


def test_torch_without_a_gpu_is_refused(pair_of_files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(NotReady, match="finds no GPU here"):
        gamma_of_files(*pair_of_files, CRITERIA, engine="torch", verify=0)


def test_what_is_not_sampled_can_not_be_verified(pair_of_files) -> None:
    with pytest.raises(BadInput, match="checks a sampled map against pymedphys, not exact"):
        gamma_of_files(*pair_of_files, CRITERIA, engine="exact", verify=5)


def test_a_measured_plane_keeps_its_two_axes_and_is_the_published_one(shared_data: Path) -> None:
    """Agnew & McGarry 2016, doi:10.1016/j.radonc.2015.11.034: 2 %/2 mm local, cutoff 20 %."""
    planes = [shared_data / "gamma" / f"H&N_VMAT_{which}_1mmPx.dcm" for which in ("Reference", "Evaluated")]
    criteria = GammaCriteria(2, 2, 20, local=True, interp_fraction=10, max_gamma=2.0)
    found = gamma_of_files(*planes, criteria, engine="auto", verify=10)
    assert round(found["pass_rate_percent"], 2) == 99.25
    assert found["engine"] == "sampled"
    assert found["largest_difference_from_pymedphys"] < 1e-10


def test_planes_at_different_places_are_refused(tmp_path: Path) -> None:
    dose = np.ones((1, 6, 6), np.float32)
    for name, z_mm in (("one", 0.0), ("other", 5.0)):
        np.savez(tmp_path / f"{name}.npz", dose_gy=dose, spacing_mm=(3.0, 2.0, 2.0), origin_mm=(z_mm, 0.0, 0.0))
    with pytest.raises(BadInput, match=r"the two planes lie 5\.00 mm apart along z"):
        gamma_of_files(tmp_path / "one.npz", tmp_path / "other.npz", CRITERIA, engine="sampled", verify=0)


@pytest.mark.parametrize(("apart_mm", "is_one"), [(0.05, True), (0.1, True), (0.11, False)])
def test_planes_a_rounding_apart_are_one(apart_mm: float, is_one: bool, tmp_path: Path) -> None:
    dose = np.ones((1, 6, 6), np.float32)
    for name, z_mm in (("one", 12.3), ("other", 12.3 + apart_mm)):
        np.savez(tmp_path / f"{name}.npz", dose_gy=dose, spacing_mm=(3.0, 2.0, 2.0), origin_mm=(z_mm, 0.0, 0.0))
    files = tmp_path / "one.npz", tmp_path / "other.npz"
    if is_one:
        assert gamma_of_files(*files, CRITERIA, engine="sampled", verify=0)["pass_rate_percent"] == 100.0
    else:
        with pytest.raises(BadInput, match=r"the two planes lie 0\.11 mm apart along z"):
            gamma_of_files(*files, CRITERIA, engine="sampled", verify=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.npz", None, "absent.npz can't be read"),
        ("text.dcm", b"not a dose", "text.dcm is no DICOM; give an RTDOSE"),
        ("text.npz", b"not a dose", "text.npz can't be read"),
    ],
)
def test_files_that_hold_no_dose_are_refused_by_name(tmp_path: Path, name, content, message) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=message):
        read_dose_file(tmp_path / name)


def test_an_npz_without_a_dose_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "empty.npz", ct_hu=np.zeros(3))
    with pytest.raises(BadInput, match="no 'dose_gy"):
        read_dose_file(tmp_path / "empty.npz")


def test_files_of_different_patients_frames_or_cases_are_told(shared_data: Path, tmp_path: Path) -> None:
    plane = shared_data / "gamma" / "H&N_VMAT_Reference_1mmPx.dcm"
    other = pydicom.dcmread(plane)
    other.PatientID, other.FrameOfReferenceUID = "somebody else", "1.2.3"
    other.save_as(tmp_path / "other.dcm")
    del other.PatientID, other.FrameOfReferenceUID
    other.save_as(tmp_path / "silent.dcm")
    for name, case_id in (("one", "case_0001"), ("two", "case_0002")):
        np.savez(
            tmp_path / f"{name}.npz", dose_gy=np.ones((3, 4, 5), np.float32), spacing_mm=(3.0, 3.0, 3.0),
            origin_mm=(0.0, 0.0, 0.0), meta=json.dumps({"case_id": case_id}),
        )  # fmt: skip

    def differ(reference: Path, evaluation: Path) -> list[str]:
        return read_dose_file(reference).doubts(read_dose_file(evaluation))

    assert differ(plane, plane) == differ(plane, tmp_path / "silent.dcm") == []
    assert differ(plane, tmp_path / "other.dcm") == ["frame of reference", "patient"]
    assert differ(tmp_path / "one.npz", tmp_path / "two.npz") == ["case"]
    told = CliRunner().invoke(app, ["dose", "gamma", str(tmp_path / "one.npz"), str(tmp_path / "two.npz")])
    assert "; the two files are of different case: make sure that they belong together" in told.output

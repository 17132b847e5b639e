"""OpenKBP folders to cases: axes, orientation and offsets on made-up and on real patients, and each refusal."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput, SkippedCase
from doseledger.core.grid import Grid
from doseledger.core.project.protocol import Protocol, SkipWhen, load_protocol
from doseledger.core.tables import CASES, read_table
from doseledger.ingest.cohort import IngestCount, IngestRun, ingest
from doseledger.ingest.openkbp.case import convert_case, find_body
from doseledger.ingest.openkbp.files import _is_torn, find_patients, read_patient
from doseledger.ingest.patient.case import Origin

SHAPE = (128, 128, 128)


def write_sparse(path: Path, array: np.ndarray, with_values: bool) -> None:
    index = np.flatnonzero(array)
    values = (str(v) for v in array.ravel()[index]) if with_values else ("" for _ in index)
    path.write_text(",data\n" + "".join(f"{i},{v}\n" for i, v in zip(index, values, strict=True)))


@pytest.fixture
def protocol(repository: Path) -> Protocol:
    return load_protocol(repository / "validation/cohorts/openkbp/protocol.yaml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A patient of boxes: the target in front, on the left, high up."""
    patient = tmp_path / "pt_7"
    patient.mkdir()
    ct, body = np.zeros(SHAPE), np.zeros(SHAPE, bool)
    body[35:60, 45:95, 28:70] = True
    ct[body] = 1040.0
    ct[45, 60, 60] = 19000.0
    ct[50:54, 50:54, 40:60] = 200.0
    target = np.zeros(SHAPE, bool)
    target[40:50, 80:90, 30:36] = True
    dose = np.where(body, 20.0, 0.0)
    dose[target] = 70.0
    write_sparse(patient / "ct.csv", ct, True)
    write_sparse(patient / "dose.csv", dose, True)
    write_sparse(patient / "possible_dose_mask.csv", body, False)
    write_sparse(patient / "PTV70.csv", target, False)
    write_sparse(patient / "Larynx.csv", np.zeros(SHAPE, bool), False)
    (patient / "voxel_dimensions.csv").write_text("3.5\n4.0\n2.5\n")
    return patient


def test_axes_are_turned_to_head_posterior_left(folder: Path, protocol: Protocol) -> None:
    case = convert_case(folder, Origin("pt_7"), protocol)
    assert case.grid.spacing_mm == (2.5, 3.5, 4.0)
    found = [(int(axis.min()), int(axis.max())) for axis in np.nonzero(case.mask("PTV70"))]
    # Superior slices 30 to 35 counted from the head are 92 to 97 counted from the feet.
    assert found == [(92, 97), (40, 49), (80, 89)]
    assert case.dose_gy is not None
    assert case.dose_gy[case.mask("PTV70")].min() == 70.0
    z, y, x = case.grid.index_to_mm(np.argwhere(case.mask("PTV70")).mean(axis=0))
    assert z > 0 > y
    assert x > 0


def test_the_case_keeps_its_own_grid_and_says_where_it_comes_from(folder: Path, protocol: Protocol) -> None:
    case = convert_case(folder, Origin("pt_7"), protocol)
    assert case.grid.shape_zyx == SHAPE == case.full_shape_zyx
    assert case.prescription_gy == {"PTV70": 70.0}
    assert case.n_fractions == 35
    assert case.present_names == ("PTV70",)
    assert case.meta["pseudonym"] == "pt_7"
    assert len(case.meta["source_sha256"]) == 64
    assert float(case.sdf_mm[case.structure_names.index("Larynx")].min()) == protocol.sdf_clip_mm
    assert float(case.sdf_mm[0].min()) < 0


def test_ct_becomes_hounsfield_units_and_metal_is_cut(folder: Path, protocol: Protocol) -> None:
    case = convert_case(folder, Origin("pt_7"), protocol)
    assert case.ct_hu[0, 0, 0] == -1000
    assert case.ct_hu[64, 40, 60] == 40
    assert case.ct_hu.max() == 3095
    assert case.meta["warnings"] == ["1 CT values beyond 0 to 4095 (metal) were cut to that range"]


def test_the_body_has_its_airway_filled(folder: Path, protocol: Protocol) -> None:
    case = convert_case(folder, Origin("pt_7"), protocol)
    assert case.ct_hu[70, 52, 52] == -800
    assert case.body.sum() == 25 * 50 * 42


def test_a_crumb_of_couch_is_no_body_and_two_halves_of_a_patient_are() -> None:
    grid = Grid((40, 40, 40), (3.0, 3.0, 3.0), (0.0, 0.0, 0.0))
    ct = np.full(grid.shape_zyx, -1000, np.int16)
    ct[:15, 5:35, 5:35] = ct[20:, 5:35, 5:35] = 0
    ct[17, 38, 38] = 0
    body = find_body(ct, np.zeros(grid.shape_zyx, bool), grid)
    assert body.sum() == 35 * 30 * 30


def test_a_zip_gives_the_case_of_its_folder(folder: Path, protocol: Protocol, tmp_path: Path) -> None:
    packed = tmp_path / "pt_7.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"pt_7/{path.name}")
    for name, case in {
        "a": convert_case(folder, Origin("pt_7"), protocol),
        "b": convert_case(packed, Origin("pt_7"), protocol),
    }.items():
        case.save(tmp_path / name / "pt_7.npz")
    assert (tmp_path / "a" / "pt_7.npz").read_bytes() == (tmp_path / "b" / "pt_7.npz").read_bytes()
    Case.load(tmp_path / "a" / "pt_7.npz")


def test_patients_are_found_in_the_challenges_layout_and_one_by_one(tmp_path: Path) -> None:
    for name in ("train-pats/pt_2", "validation-pats/pt_10"):
        (tmp_path / name).mkdir(parents=True)
    assert {name: path.parent.name for name, path in find_patients(tmp_path).items()} == {
        "pt_10": "validation-pats", "pt_2": "train-pats",
    }  # fmt: skip
    assert list(find_patients(tmp_path / "train-pats")) == ["pt_2"]
    (tmp_path / "validation-pats" / "pt_2").mkdir()
    with pytest.raises(BadInput, match="pt_2 is there twice: in train-pats and validation-pats"):
        find_patients(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ct", None, "no ct.csv among 5 CSV files"),
        ("dose", None, "no dose.csv, and protocol head_neck_openkbp asks for a dose"),
        ("dose", ",data\n5,-1.0\n", "goes down to -1.000 Gy"),
        ("dose", ",data\n5,\n", "1 voxels without a number"),
        ("dose", ",data\n5,much\n", "1 voxels without a number"),
        ("ct", ",data\n2097152,1.0\n", "indices from 2097152"),
        ("ct", ",data\n7,1.0\n7,2.0\n", "names 1 voxels twice"),
        ("ct", "hello", "no sparse volume"),
        ("PTV70", ",data\n5,0.5\n", "PTV70.csv is no mask"),
        ("voxel_dimensions", "3.5\n4.0\n", "wanted three sizes"),
        ("voxel_dimensions", "3.5\n4.0\nwide\n", "no list of numbers"),
        ("voxel_dimensions", "3.5\n4.0\n1e308\n", "wanted three sizes of 0.01 to 100 mm"),
        ("voxel_dimensions", "3.5\n4.0\n100.1\n", "wanted three sizes of 0.01 to 100 mm"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused(
    name: str, content: str | None, message: str, folder: Path, protocol: Protocol
) -> None:
    path = folder / f"{name}.csv"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadCase, match=message):
        convert_case(folder, Origin("pt_7"), protocol)


def cut(path: Path, share: float) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: 1 + int(share * (len(lines) - 1))]))


@pytest.mark.parametrize(
    ("name", "share", "message"),
    [
        ("dose", 0.5, "dose.csv ends before the patient does: 50.0 % of possible_dose_mask.csv lies behind"),
        ("dose", 0.99, "dose.csv ends before the patient does: 1.0 %"),
        ("ct", 0.5, "ct.csv ends before the patient does"),
        ("possible_dose_mask", 0.5, "dose.csv has a dose in 26250 voxels outside possible_dose_mask.csv"),
        ("PTV70", 0.55, "PTV70.csv ends amid a plane"),
        ("possible_dose_mask", 0.0, "possible_dose_mask.csv names no voxel"),
        ("dose", 0.0, "dose.csv ends before the patient does: 100.0 %"),
    ],
)
def test_a_file_that_was_cut_at_a_line_is_refused(
    name: str, share: float, message: str, folder: Path, protocol: Protocol
) -> None:
    cut(folder / f"{name}.csv", share)
    with pytest.raises(BadCase, match=message):
        convert_case(folder, Origin("pt_7"), protocol)


@pytest.mark.parametrize(("behind", "is_whole"), [(52, True), (53, False)])
def test_a_thousandth_of_the_mask_may_lie_behind_the_last_dose(
    behind: int, is_whole: bool, folder: Path, protocol: Protocol
) -> None:
    # The mask has 52,500 voxels.
    lines = (folder / "dose.csv").read_text().splitlines(keepends=True)
    (folder / "dose.csv").write_text("".join(lines[:-behind]))
    if is_whole:
        convert_case(folder, Origin("pt_7"), protocol)
        return
    with pytest.raises(BadCase, match=r"dose.csv ends before the patient does: 0\.1 %"):
        convert_case(folder, Origin("pt_7"), protocol)


@pytest.mark.parametrize(
    ("kept", "of_before", "is_torn"),
    [(16, 30, True), (15, 30, False), (20, 29, False), (19, 40, False), (20, 30, True)],
    ids=["80 % repeated", "less repeated", "9 lacking", "ends early", "all repeated"],
)
def test_a_plane_that_stops_amid_the_one_before_is_torn(kept: int, of_before: int, is_torn: bool) -> None:
    # The plane before is a row of voxels; the last one repeats its first ones and always holds the 20th.
    row = np.arange(of_before)
    last = np.unique([*range(kept - 1), 19 if kept != 19 else 18])
    assert _is_torn(np.concatenate([row, 128**2 + last])) is is_torn


def test_a_patient_that_skip_when_covers_is_skipped(folder: Path, protocol: Protocol) -> None:
    strict = protocol.model_copy(update={"skip_when": SkipWhen(any_absent=["PTV56"], reason="no boost")})
    with pytest.raises(SkippedCase, match="no boost: no ROI matches PTV56"):
        convert_case(folder, Origin("pt_7"), strict)


@pytest.fixture(scope="session")
def openkbp_folder(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two real patients of each part, written out as the challenge does."""
    out = tmp_path_factory.mktemp("openkbp")
    script = shared_data / "openkbp" / "expand.py"
    subprocess.run([sys.executable, str(script), str(out), "--patients", "2"], check=True)
    return out


def test_real_patients_have_their_anatomy_the_right_way_round(openkbp_folder: Path, protocol: Protocol) -> None:
    source = sorted((openkbp_folder / "train-pats").iterdir())[0]
    case = convert_case(source, Origin(source.name), protocol)
    centre = {name: case.grid.index_to_mm(np.argwhere(case.mask(name)).mean(axis=0)) for name in case.present_names}
    # z to the head, y to the back, x to the patient's left.
    assert centre["Brainstem"][0] > centre["SpinalCord"][0]
    assert centre["Mandible"][1] < centre["SpinalCord"][1]
    assert centre["LeftParotid"][2] > centre["RightParotid"][2]
    assert 10 < np.median(case.ct_hu[case.mask("Brainstem")]) < 60
    assert (case.valid_dose & ~case.body).sum() == 0
    assert case.dose_gy is not None
    assert case.dose_gy[~case.valid_dose].max() == 0.0
    target = max(case.prescription_gy, key=lambda name: case.prescription_gy[name])
    assert np.median(case.dose_gy[case.mask(target)]) == pytest.approx(case.prescription_gy[target], rel=0.06)


def test_ingest_takes_the_challenges_folder_as_it_is(openkbp_folder: Path, protocol: Protocol, tmp_path: Path) -> None:
    run = IngestRun(index=tmp_path / "index.json")
    assert ingest(openkbp_folder, tmp_path / "cases", protocol, run, print) == IngestCount(4, 0, 0, 0)
    table = read_table(tmp_path / "cases" / "cases.csv", CASES)
    assert len(table) == 4
    for case_id in table["case_id"]:
        Case.load(tmp_path / "cases" / f"{case_id}.npz")
    assert ingest(openkbp_folder, tmp_path / "cases", protocol, run, print) == IngestCount(0, 4, 0, 0)


def test_a_real_patient_is_the_compact_array_voxel_by_voxel(
    openkbp_folder: Path, shared_data: Path, protocol: Protocol
) -> None:
    source = sorted((openkbp_folder / "validation-pats").iterdir())[0]
    patient = read_patient(source, source.name)
    with np.load(shared_data / "openkbp" / "validation" / f"{source.name}.npz") as compact:
        dose = compact["dose_2mgy"] * 0.002
        ct = compact["ct"]
    assert patient.dose_gy is not None
    for i, j, k in ((64, 64, 64), (50, 70, 40), (80, 40, 90)):
        assert patient.dose_gy[127 - k, i, j] == pytest.approx(dose[i, j, k], abs=1e-6)
        assert patient.ct_stored[127 - k, i, j] == ct[i, j, k]

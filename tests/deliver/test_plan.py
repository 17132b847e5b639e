"""From a predicted dose to a plan: deliverable, linked, judged, and who is refused."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from scipy import ndimage
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner

from doseledger.cli.app import app
from doseledger.core.case import Case, write_npz
from doseledger.core.errors import BadCase, BadInput, NotReady
from doseledger.core.files import sha256_of_file
from doseledger.core.pool.cluster import HERE
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import load_goals, load_protocol
from doseledger.core.settings import DeliverSettings, PhantomSettings
from doseledger.deliver.cohort import Delivered, deliver_cohort
from doseledger.deliver.gap import describe_delivery
from doseledger.deliver.plan import PlanRequest, deliver_named, read_patient_case
from doseledger.deliver.robustness import describe_robustness
from doseledger.deliver.wishes import read_wishes, with_wishes
from doseledger.dicom.plan.check import MachineLimits, check_rtplan
from doseledger.dicom.plan.read import read_plan
from doseledger.dicom.read_dose import read_dose
from doseledger.evaluate.files import plan_dose
from doseledger.phantom.cohort import DIRT, make_case
from doseledger.planning.machine.linac import Machine, load_machine

# Feet first and prone, so that every angle is turned on its way.
NUMBER = next(number for number, dirt in DIRT.items() if dirt.position == "FFP")
CASE = f"case_{NUMBER:04d}"
POOR = PhantomSettings(
    n_patients=1, seed=3, in_plane_pixels=96, segments_per_arc=24, iterations=16, attempts=1,
    dose_grid_mm=6.0, near_bowel_share=0.0,
)  # fmt: skip
QUICK = DeliverSettings(
    models=[], machine="generic", seed=1, segments_per_arc=20, iterations=20, n_points=2000, mu_weight=0.0,
    edge_weight=0.0, outline_margin_mm=0.0,
)  # fmt: skip
WISH = "Bladder V45Gy < 30 %"


@dataclass(frozen=True)
class Made:
    """A cohort of one case that is planned and one that is not, and what came of it."""

    root: Path
    part: Delivered
    request: PlanRequest
    summary: dict[str, Any]
    told: list[str]

    @property
    def out(self) -> Path:
        return self.root / "plans" / CASE

    def judged(self, name: str = "plan.json") -> Any:
        return json.loads((self.out / name).read_text())

    def read(self, name: str) -> pydicom.Dataset:
        return pydicom.dcmread(self.out / f"{name}.dcm")


def airy(machine: Machine) -> Machine:
    """A machine to which every patient is lung."""
    lung = machine.density.model_copy(update={"relative": [0.3 * value for value in machine.density.relative]})
    return machine.model_copy(update={"density": lung})


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The matrices are small: threads of BLAS would only wait for one another."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def made(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    root, layout = tmp_path_factory.mktemp("deliver"), Layout(repository, "phantom")
    goals = load_goals(layout.goals)
    # Eight times fewer voxels than the cohort's own.
    protocol = load_protocol(layout.protocol).model_copy(update={"spacing_mm": (6.0, 5.0, 5.0)})
    for folder in ("raw", "cases", "predictions"):
        (root / folder).mkdir()
    make_case(CASE, NUMBER, root / "raw", POOR, goals.model_copy(update={"goals": []}))
    case = read_patient_case(root / f"raw/{CASE}.zip", CASE, protocol)
    case.save(root / f"cases/{CASE}.npz")
    # A network's dose is smoother than a plan's.
    blurred = np.where(case.body, ndimage.gaussian_filter(case.dose_gy, 0.5), np.float32(0.0)).astype(np.float32)
    meta = {
        "case_id": CASE, "case_sha256": sha256_of_file(root / f"cases/{CASE}.npz"), "model": "dose_unet",
        "checkpoint_sha256": "ab" * 32, "trained_on": [], "selected_on": [],
    }  # fmt: skip
    arrays = {
        "dose_gy": blurred, "spacing_mm": np.asarray(case.grid.spacing_mm),
        "origin_mm": np.asarray(case.grid.origin_mm), "meta": np.asarray(json.dumps(meta)),
    }  # fmt: skip
    write_npz(root / f"predictions/{CASE}.npz", arrays)
    shutil.copy(root / f"cases/{CASE}.npz", root / "cases/case_0099.npz")
    sha256 = sha256_of_file(root / f"cases/{CASE}.npz")
    rows = [(CASE, sha256), ("case_0099", sha256)]
    pd.DataFrame(
        [(0, 0, name, name, "unknown", "test", digest) for name, digest in rows],
        columns=["repeat", "fold", "case_id", "pseudonym", "group", "split", "sha256"],
    ).to_csv(root / "splits.csv", index=False)
    part = Delivered(root / "raw", root / "cases", root / "predictions", root / "splits.csv", 0, 0)
    wishes = read_wishes([WISH], protocol)
    request = PlanRequest(protocol, with_wishes(goals, wishes), QUICK, load_machine(), tuple(wishes), robustness=True)
    told: list[str] = []
    summary = deliver_cohort(part, root / "plans", root / "deliver.json", request, scale=HERE, tell=told.append)
    return Made(root, part, request, summary, told)


def test_a_case_that_can_not_be_planned_is_listed_and_the_others_are_planned(made: Made) -> None:
    assert made.summary["n_cases"] == made.summary["n_failed"] == 1
    assert "no folder or zip of its DICOM" in made.summary["failed"]["case_0099"]
    assert json.loads((made.root / "deliver.json").read_text()) == made.summary
    assert made.summary["gap"] == made.judged()["gap"]
    own = made.summary["cases"][CASE]
    assert list(made.summary["cases"]) == [CASE]
    assert own["gamma_2_2_percent"] == made.judged()["gap"]["gamma_2_2_percent"]
    assert own["d95_before_scaling_gy"] == made.judged()["normalisation"]["before"]["d95_gy"]
    assert made.summary["checkpoint_sha256"] == ["ab" * 32]


def test_the_plan_on_disk_keeps_every_limit_of_the_machine(made: Made) -> None:
    machine = made.request.machine
    limits = MachineLimits(
        machine.leaves.n_pairs, machine.leaves.min_gap_mm, machine.leaves.max_speed_mm_s,
        machine.gantry.max_speed_deg_s, (machine.dose_rate.min_mu_min, machine.dose_rate.max_mu_min),
        machine.gantry.min_speed_deg_s,
    )  # fmt: skip
    plan = made.read("rtplan")
    assert check_rtplan(plan, limits) == []
    assert [len(beam.ControlPointSequence) for beam in plan.BeamSequence] == [21, 21]
    assert plan.ApprovalStatus == "UNAPPROVED"
    assert "dose_unet (abababababab)" in plan.RTPlanDescription


def test_plan_and_dose_are_linked_to_the_patients_scan_and_structures(made: Made) -> None:
    with zipfile.ZipFile(made.root / f"raw/{CASE}.zip") as archive:
        image, structures = (pydicom.dcmread(io.BytesIO(archive.read(n))) for n in ("CT/0001.dcm", "RS.dcm"))
    plan, dose = made.read("rtplan"), made.read("rtdose")
    assert dose.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == plan.SOPInstanceUID
    for item in (plan, dose):
        assert item.ReferencedStructureSetSequence[0].ReferencedSOPInstanceUID == structures.SOPInstanceUID
        assert (item.FrameOfReferenceUID, item.StudyInstanceUID) == (image.FrameOfReferenceUID, image.StudyInstanceUID)
        assert item.PatientID == image.PatientID
    names = {roi.ROINumber: roi.ROIName for roi in structures.StructureSetROISequence}
    assert [names[item.ReferencedROINumber] for item in plan.DoseReferenceSequence] == ["PTV70", "PTV56"]


def test_the_dose_is_recomputed_from_the_files_to_a_hundredth_of_a_gray(made: Made, tmp_path: Path) -> None:
    with zipfile.ZipFile(made.root / f"raw/{CASE}.zip") as archive:
        archive.extractall(tmp_path / CASE, [n for n in archive.namelist() if n.startswith("CT") or n == "RS.dcm"])
    for name in ("rtplan.dcm", "rtdose.dcm"):
        shutil.copy(made.out / name, tmp_path / CASE)
    found = plan_dose.recompute_dose(tmp_path / CASE)
    assert found.worst_gy < 0.01
    assert found.warning == ""
    # Our own ingest takes it for a plan and its dose.
    again = read_patient_case(tmp_path / CASE, CASE, made.request.protocol)
    assert again.meta["plan"]["faults"] == []
    assert np.percentile(again.dose_gy[again.mask("PTV70")], 5) == pytest.approx(70.0, abs=0.02)


def test_the_dose_of_a_beam_is_that_at_its_isocentre(made: Made) -> None:
    items = made.read("rtplan").FractionGroupSequence[0].ReferencedBeamSequence
    dose = read_dose(made.read("rtdose"), CASE)
    at = np.array([float(v) for v in items[0].BeamDoseSpecificationPoint])[::-1]
    whole = float(ndimage.map_coordinates(dose.dose_gy, dose.grid.mm_to_index(at)[:, None], order=1)[0])
    assert sum(float(item.BeamDose) for item in items) * 28 == pytest.approx(whole, rel=0.02)


def test_the_dvhs_in_the_file_are_those_of_the_dose_in_the_file(made: Made) -> None:
    case = Case.load(made.root / f"cases/{CASE}.npz")
    dose = made.read("rtdose")
    dose_gy = read_dose(dose, CASE).dose_gy
    with zipfile.ZipFile(made.root / f"raw/{CASE}.zip") as archive:
        structures = pydicom.dcmread(io.BytesIO(archive.read("RS.dcm")))
    names = {roi.ROINumber: roi.ROIName for roi in structures.StructureSetROISequence}
    found = {names[item.DVHReferencedROISequence[0].ReferencedROINumber]: item for item in dose.DVHSequence}
    assert set(case.present_names) <= set(found)
    for name in ("PTV70", "Bladder"):
        item, inside = found[name], dose_gy[case.mask(name)]
        assert float(item.DVHMeanDose) == pytest.approx(float(inside.mean()), abs=0.01)
        assert float(item.DVHMaximumDose) == pytest.approx(float(inside.max()), abs=0.01)
        widths, volumes = np.asarray(item.DVHData, dtype=float).reshape(-1, 2).T
        assert len(volumes) == item.DVHNumberOfBins
        assert volumes[0] == pytest.approx(len(inside) * case.grid.voxel_volume_cc, rel=1e-4)
        # The volume of at least 40 Gy.
        forty = np.cumsum(widths) - widths
        share = volumes[int(np.argmin(np.abs(forty - 40.0)))] / volumes[0]
        assert share == pytest.approx(float(np.mean(inside >= 40.0)), abs=0.02)


def test_pymedphys_reads_the_same_delivery_and_dose(made: Made) -> None:
    import pymedphys

    ds = made.read("rtplan")
    plan = read_plan(ds, CASE)
    # It knows machines with one pair of jaws, named at every control point.
    for beam in ds.BeamSequence:
        beam.BeamLimitingDeviceSequence = [
            item for item in beam.BeamLimitingDeviceSequence if item.RTBeamLimitingDeviceType != "ASYMX"
        ]
        (jaws,) = (
            item
            for item in beam.ControlPointSequence[0].BeamLimitingDevicePositionSequence
            if item.RTBeamLimitingDeviceType == "ASYMY"
        )
        for point in beam.ControlPointSequence:
            point.BeamLimitingDevicePositionSequence = [jaws, point.BeamLimitingDevicePositionSequence[-1]]
            # Of 180 degrees alone it can't tell from which side it is reached.
            if "GantryAngle" in point and float(point.GantryAngle) == 180.0:
                point.GantryAngle = "179.9999"
    found = pymedphys.Delivery.from_dicom(ds)
    ends = np.cumsum([0.0, *(arc.meterset_mu[-1] for arc in plan.arcs)])
    ours = np.concatenate([arc.meterset_mu + before for arc, before in zip(plan.arcs, ends, strict=False)])
    np.testing.assert_allclose(found.monitor_units, ours, atol=1e-4)
    turned = np.concatenate([arc.gantry_deg for arc in plan.arcs])
    np.testing.assert_allclose(np.cos(np.radians(found.gantry)), np.cos(np.radians(turned)), atol=1e-5)
    np.testing.assert_allclose(np.sin(np.radians(found.gantry)), np.sin(np.radians(turned)), atol=1e-5)
    # Its pairs run from the last to the first, bank X2 before X1, both positive where they are open.
    x1, x2 = np.concatenate([arc.leaf_mm for arc in plan.arcs])[:, :, ::-1].transpose(1, 0, 2)
    np.testing.assert_array_equal(np.asarray(found.mlc), np.stack([x2, -x1], axis=-1))
    dose = made.read("rtdose")
    (z, y, x), dose_gy = pymedphys.dicom.zyx_and_dose_from_dataset(dose)
    again = read_dose(dose, CASE)
    assert dose_gy.shape == (len(z), len(y), len(x)) == again.grid.shape_zyx
    assert dose_gy.max() == pytest.approx(again.dose_gy.max(), rel=1e-6)


def test_dciodvfy_finds_no_error(made: Made) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed: apt-get install dicom3tools")
    for name in ("rtplan", "rtdose"):
        said = subprocess.run(
            ["dciodvfy", "-new", str(made.out / f"{name}.dcm")], capture_output=True, text=True, check=False
        )
        assert "Error" not in said.stdout + said.stderr, said.stderr


def test_predicted_delivered_and_original_stand_side_by_side(made: Made) -> None:
    judged = made.judged()
    assert judged["gap"]["mae_above_10_percent_gy"] < 4.0
    assert judged["normalisation"]["d95_gy"] == pytest.approx(70.0, abs=0.02)
    assert judged["normalisation"]["scale"] * judged["normalisation"]["before"]["d95_gy"] == pytest.approx(
        judged["normalisation"]["d95_gy"], abs=0.02
    )
    assert {"predicted", "delivered", "original"} <= judged["dvh"][0].keys() & judged["goals"][0].keys()
    asked = next(row for row in judged["goals"] if row["goal"] == "Bladder V45Gy ≤ 30 %")
    assert asked["source"] == "asked for this patient (--goal)"
    assert not any(row["goal"] == "Bladder V45Gy ≤ 45 %" for row in judged["goals"])
    table = "\n".join(describe_delivery(judged))
    assert "One dose engine planned and judged" in table
    assert all(f"{who:>14}" in table for who in ("predicted", "delivered", "original"))
    assert any(CASE in line and "gamma of the plan's dose" in line for line in made.told)


def test_a_plan_under_errors_has_bands_about_itself(made: Made) -> None:
    found = made.judged("robustness.json")
    kinds = list(found["scenarios"].values())
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "nominal": 1, "setup_3_mm": 6, "setup_5_mm": 6, "density_3_percent": 2, "other_beam": 4,
    }  # fmt: skip
    for bands in found["structures"].values():
        nominal = np.asarray(bands["nominal"]["least_percent"])
        for band in bands.values():
            assert np.all(np.asarray(band["least_percent"]) <= nominal)
            assert np.all(np.asarray(band["most_percent"]) >= nominal)
    target = found["structures"]["PTV70"]
    cold = {kind: target[kind]["statistics_gy"]["D98%"][0] for kind in target}
    assert cold["setup_5_mm"] < cold["setup_3_mm"] < cold["nominal"]
    # Denser tissue lets less through, by some 5 % at most.
    low, high = target["density_3_percent"]["statistics_gy"]["mean"]
    middle = target["nominal"]["statistics_gy"]["mean"][0]
    assert 0.95 * middle < low < middle < high < 1.05 * middle
    # Another beam of the same calibration moves the target's dose, but no more than the engine's own errors in bone do.
    low, high = target["other_beam"]["statistics_gy"]["mean"]
    assert 0.97 * middle < low < middle < high < 1.03 * middle
    assert all(0 <= row["met"] <= row["of"] == 19 for row in found["goals"])
    assert any("PTV70 D95%" in line for line in describe_robustness(found))


def test_the_same_request_gives_the_same_bytes(made: Made, tmp_path: Path) -> None:
    request = replace(made.request, robustness=False)
    folders = (made.part.raw, made.part.cases, made.part.predictions)
    shutil.copy(made.out / "robustness.json", tmp_path)
    deliver_named(CASE, folders, None, request, tmp_path)
    # What an earlier plan was worth under errors does not stay beside this one.
    assert not (tmp_path / "robustness.json").exists()
    for name in ("rtplan.dcm", "rtdose.dcm", "plan.json"):
        assert (tmp_path / name).read_bytes() == (made.out / name).read_bytes()


@pytest.mark.parametrize("after", [1, 2])
def test_a_full_disk_leaves_the_old_plan_whole(
    made: Made, tmp_path: Path, fill_disk: Callable[[Path, int], None], after: int
) -> None:
    folders = (made.part.raw, made.part.cases, made.part.predictions)
    for path in made.out.iterdir():
        shutil.copy(path, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    fill_disk(tmp_path, after)
    other = replace(made.request, settings=QUICK.model_copy(update={"seed": 2}), robustness=False)
    with pytest.raises(NotReady, match="the disk is full"):
        deliver_named(CASE, folders, None, other, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_patient_of_lung_is_refused(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = (made.part.raw, made.part.cases, made.part.predictions)
    lungs = replace(made.request, machine=airy(made.request.machine))
    with pytest.raises(BadCase, match=f"{CASE}: 100.0 % of the target .* plan this patient with .*--machine tissue"):
        deliver_named(CASE, folders, None, lungs, tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(plan_dose, "machine_named", lambda name: airy(load_machine()))
    with pytest.raises(BadCase, match=r"% of the target .* lies in low density .* recompute this plan with another"):
        plan_dose.recompute_dose(made.root / f"raw/{CASE}.zip")
    lung = airy(load_machine())
    follows = lung.model_copy(update={"beam": lung.beam.model_copy(update={"follows_density": True})})
    found = plan_dose.recompute_dose(made.root / f"raw/{CASE}.zip", follows)
    assert "within 5 % of Monte Carlo" in found.warning


def test_a_dose_of_another_patient_or_grid_is_refused(made: Made, tmp_path: Path) -> None:
    folders = (made.part.raw, made.part.cases, made.part.predictions)
    with np.load(made.root / f"predictions/{CASE}.npz") as npz:
        arrays = dict(npz)
    moved = {**arrays, "origin_mm": arrays["origin_mm"] + 1.0}
    write_npz(tmp_path / f"{CASE}.npz", moved)
    with pytest.raises(BadCase, match=r"lies on another grid .* predict this patient again"):
        deliver_named(CASE, folders, tmp_path / f"{CASE}.npz", made.request, tmp_path / "out")
    stale = json.loads(str(arrays["meta"])) | {"case_sha256": "0" * 64}
    write_npz(tmp_path / f"{CASE}.npz", {**arrays, "meta": np.asarray(json.dumps(stale))})
    with pytest.raises(BadCase, match=r"of the case as it was \(000000000000…\); predict it again"):
        deliver_named(CASE, folders, tmp_path / f"{CASE}.npz", made.request, tmp_path / "out")
    other = {**arrays, "meta": np.asarray(str(arrays["meta"]).replace(CASE, "case_0003"))}
    write_npz(tmp_path / "case_0003.npz", other)
    with pytest.raises(BadCase, match=f"{CASE}: the prediction is of case_0003"):
        deliver_named(CASE, folders, tmp_path / "case_0003.npz", made.request, tmp_path / "out")
    with pytest.raises(BadInput, match="name the dose to mimic with --prediction"):
        deliver_named(str(made.root / f"raw/{CASE}.zip"), folders, None, made.request, tmp_path / "out")
    with pytest.raises(BadInput, match="'case_0042' is no model, no folder or zip of DICOM, and no case"):
        deliver_named("case_0042", folders, None, made.request, tmp_path / "out")


def test_a_cohort_without_dicom_has_nothing_to_plan_on(made: Made, repository: Path, tmp_path: Path) -> None:
    protocol = load_protocol(Layout(repository, "openkbp").protocol)
    with pytest.raises(BadInput, match="reads openkbp: without CT and RTSTRUCT as DICOM"):
        deliver_cohort(
            made.part,
            tmp_path,
            tmp_path / "x.json",
            replace(made.request, protocol=protocol),
            scale=HERE,
            tell=lambda line: None,
        )


def test_options_for_one_patient_are_none_for_a_model(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    runner = CliRunner()
    both = runner.invoke(app, ["deliver", "plan", "dose_unet", "--robustness"])
    assert isinstance(both.exception, BadInput)
    assert "dose_unet is a model, whose plans are a stage" in str(both.exception)
    nowhere = runner.invoke(app, ["deliver", "plan", "case_0001"])
    assert "name the folder of the patient's files with --out" in str(nowhere.exception)


def test_what_the_settings_switch_on_zero_switches_off(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(repository / name, tmp_path / name)
    params = tmp_path / "params.yaml"
    shutil.copytree(repository / "validation", tmp_path / "validation")
    options = ("mu_weight", "edge_weight", "outline_margin_mm")
    text = params.read_text()
    for name in options:
        assert f"  {name}: 0.0\n" in text
        text = text.replace(f"  {name}: 0.0\n", f"  {name}: 8.0\n")
    params.write_text(text)
    monkeypatch.chdir(tmp_path)
    seen: list[DeliverSettings] = []

    def noted(work: object, cases: dict[str, tuple[object, ...]], *_: object, **__: object) -> None:
        request = cases["case_0001"][3]
        assert isinstance(request, PlanRequest)
        seen.append(request.settings)
        raise BadInput("seen")

    monkeypatch.setattr("doseledger.core.pool.fanout.over_cases", noted)
    command = ["deliver", "plan", "case_0001", "--out", str(tmp_path / "out")]
    for name in (None, *options):
        off = [] if name is None else [f"--{name.replace('_', '-')}", "0"]
        assert str(CliRunner().invoke(app, command + off).exception) == "seen"
        assert {each: getattr(seen[-1], each) for each in options} == {
            each: 0.0 if each == name else 8.0 for each in options
        }

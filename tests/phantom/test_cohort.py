"""The synthetic cohort: planned, and packed as DICOM-RT that our own ingest and other people's readers take."""

from __future__ import annotations

import importlib
import io
import shutil
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from doseledger.cli.app import app
from doseledger.core.errors import BadCase, BadInput, SkippedCase
from doseledger.core.files import write_stored_zip
from doseledger.core.pool.cluster import HERE
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import GoalSet, Protocol, load_goals, load_protocol
from doseledger.core.settings import PhantomSettings
from doseledger.core.tables import RAW, read_table
from doseledger.dicom.plan.check import MachineLimits, check_rtplan
from doseledger.dicom.plan.read import read_plan
from doseledger.dicom.source import source_digest
from doseledger.dicom.write.objects import to_bytes
from doseledger.dosimetry.goals import lint_goals
from doseledger.evaluate.files.plan_dose import recompute_dose
from doseledger.ingest.patient.case import Origin, convert_case
from doseledger.phantom import cohort as phantom
from doseledger.phantom.cohort import (
    DIRT,
    Cohort,
    MadeCase,
    draw_style,
    firmer_style,
    make_case,
    make_cohort,
    tabulate_goals,
)
from doseledger.planning.machine.check import check_plan
from doseledger.planning.machine.linac import load_machine
from doseledger.report.figures.plan_figure import plot_plan

NO_GOALS = GoalSet(name="none", protocol="prostate_sib", title="none", goals=[])
# Feet first and prone.
FFP = next(number for number, dirt in DIRT.items() if dirt.position == "FFP")
NON_SIB = 13


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    return load_protocol(Path(__file__).resolve().parents[2] / "validation/cohorts/phantom/protocol.yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, poor_plans: PhantomSettings) -> Path:
    """Three packed cases: an ordinary one, one scanned feet first and prone, and one without PTV56."""
    out = tmp_path_factory.mktemp("raw")
    for number in (1, FFP, NON_SIB):
        make_case(f"case_{number:04d}", number, out, poor_plans, NO_GOALS)
    return out


def open_case(path: Path) -> dict[str, pydicom.Dataset]:
    with zipfile.ZipFile(path) as archive:
        return {name: pydicom.dcmread(io.BytesIO(archive.read(name))) for name in archive.namelist()}


def limits_of_machine() -> MachineLimits:
    machine = load_machine()
    return MachineLimits(
        machine.leaves.n_pairs, machine.leaves.min_gap_mm, machine.leaves.max_speed_mm_s,
        machine.gantry.max_speed_deg_s, (machine.dose_rate.min_mu_min, machine.dose_rate.max_mu_min),
        machine.gantry.min_speed_deg_s,
    )  # fmt: skip


@pytest.mark.parametrize("number", [1, FFP])
def test_ingest_takes_a_packed_case_without_a_warning(folder: Path, protocol: Protocol, number: int) -> None:
    case = convert_case(folder / f"case_{number:04d}.zip", Origin(f"case_{number:04d}"), protocol)
    assert case.meta["warnings"] == []
    assert case.meta["plan"]["faults"] == []
    assert case.prescription_gy == {"PTV70": 70.0, "PTV56": 56.0}
    assert case.n_fractions == 28
    assert set(case.present_names) >= {"PTV70", "PTV56", "Prostate", "Rectum", "Bladder", "Femur_L", "Femur_R"}
    assert case.dose_gy is not None
    # The plan is normalised to 70 Gy at 95 % of PTV70; another grid moves that a little.
    assert np.percentile(case.dose_gy[case.mask("PTV70")], 5) == pytest.approx(70.0, abs=1.0)


def test_a_case_without_ptv56_is_outside_the_protocol_not_a_failure(folder: Path, protocol: Protocol) -> None:
    with pytest.raises(SkippedCase, match="not a simultaneous integrated boost"):
        convert_case(folder / f"case_{NON_SIB:04d}.zip", Origin(f"case_{NON_SIB:04d}"), protocol)


@pytest.mark.parametrize("number", [1, FFP])
def test_the_plan_on_disk_gives_the_dose_on_disk(folder: Path, number: int) -> None:
    found = recompute_dose(folder / f"case_{number:04d}.zip")
    assert found.n_voxels > 10000
    assert found.greatest_gy > 70.0
    assert found.mean_gy <= found.worst_gy < 0.01


def test_a_plan_whose_monitor_units_were_changed_on_disk_is_told_from_its_dose(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "case_0001.zip", tmp_path / "case_0001.zip")
    with zipfile.ZipFile(folder / "case_0001.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    plan = pydicom.dcmread(io.BytesIO(files["RP.dcm"]))
    beam = plan.FractionGroupSequence[0].ReferencedBeamSequence[0]
    beam.BeamMeterset = f"{float(beam.BeamMeterset) * 1.01:.6f}"
    write_stored_zip(tmp_path / "case_0001.zip", files | {"RP.dcm": to_bytes(plan)})
    assert 0.2 < recompute_dose(tmp_path / "case_0001.zip").worst_gy < 0.75
    shown = CliRunner().invoke(app, ["dose", "recompute", str(tmp_path / "case_0001.zip")])
    assert shown.exit_code == 1
    assert "RTDOSE is not the dose of its RTPLAN to 0.01 Gy: case_0001 (0." in str(shown.exception)
    assert "case_0001: " in shown.stdout


def test_only_a_plan_of_the_known_machine_with_a_dose_is_recomputed(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(folder / "case_0001.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    plan = pydicom.dcmread(io.BytesIO(files["RP.dcm"]))
    for beam in plan.BeamSequence:
        beam.TreatmentMachineName = "LinacX"
    source = tmp_path / "case_0001.zip"
    write_stored_zip(source, files | {"RP.dcm": to_bytes(plan)})
    with pytest.raises(BadInput, match=r"case_0001: its plan is for LinacX, the beam is that of Generic120"):
        recompute_dose(source)
    write_stored_zip(source, {name: content for name, content in files.items() if name != "RD.dcm"})
    with pytest.raises(BadCase, match="RTDOSE"):
        recompute_dose(source)


def test_a_plan_is_drawn_as_one_small_picture_twice_the_same(folder: Path, tmp_path: Path, protocol: Protocol) -> None:
    for name in ("a.png", "b.png"):
        plot_plan(folder / f"case_{FFP:04d}.zip", protocol, tmp_path / name)
    first, again = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert first == again
    assert first.startswith(b"\x89PNG")
    assert 30_000 < len(first) < 400_000


@pytest.mark.parametrize("number", [1, FFP, NON_SIB])
def test_the_plan_can_be_delivered_in_memory_and_on_disk(folder: Path, number: int) -> None:
    dataset = open_case(folder / f"case_{number:04d}.zip")["RP.dcm"]
    assert check_rtplan(dataset, limits_of_machine()) == []
    assert check_plan(read_plan(dataset, "case"), load_machine()) == []
    assert len(dataset.BeamSequence) == 2


def test_a_leaf_moved_too_fast_is_caught_on_disk_and_in_memory(folder: Path) -> None:
    dataset = open_case(folder / "case_0001.zip")["RP.dcm"]
    device = dataset.BeamSequence[0].ControlPointSequence[7].BeamLimitingDevicePositionSequence[-1]
    tips = [float(v) for v in device.LeafJawPositions]
    # Leaf 3 of bank X1 lies far from the targets, under the Y jaws.
    tips[2] -= 90.0
    device.LeafJawPositions = tips
    message = "control point 7: leaf 3 of bank"
    assert any(message in sentence for sentence in check_rtplan(dataset, limits_of_machine()))
    assert any(message in sentence for sentence in check_plan(read_plan(dataset, "case"), load_machine()))


def test_identity_is_fictitious_and_objects_are_linked(folder: Path) -> None:
    objects = open_case(folder / "case_0001.zip")
    assert {str(item.PatientID) for item in objects.values()} == {"phantom_0001"}
    assert {str(item.PatientName) for item in objects.values()} == {"phantom^0001"}
    assert len({str(item.FrameOfReferenceUID) for item in objects.values()}) == 1
    plan, structures = objects["RP.dcm"], objects["RS.dcm"]
    assert objects["RD.dcm"].ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == plan.SOPInstanceUID
    assert plan.ReferencedStructureSetSequence[0].ReferencedSOPInstanceUID == structures.SOPInstanceUID


def test_the_same_settings_give_the_same_bytes(tmp_path: Path, poor_plans: PhantomSettings) -> None:
    lists = []
    for name in ("a", "b"):
        made = make_cohort(
            tmp_path / name, tmp_path / f"{name}.csv", poor_plans, NO_GOALS, scale=HERE, tell=lambda _: None
        )
        assert list(made.made) == ["case_0001"]
        lists.append(read_table(tmp_path / f"{name}.csv", RAW))
        assert list(lists[-1]["sha256"]) == [source_digest(tmp_path / name / "case_0001.zip")]
    assert lists[0].equals(lists[1])
    first, again = ((tmp_path / name / "case_0001.zip").read_bytes() for name in ("a", "b"))
    assert first == again


def test_a_plan_that_misses_its_goals_is_dropped_with_its_reason(
    tmp_path: Path, repository: Path, poor_plans: PhantomSettings
) -> None:
    goals = load_goals(repository / "validation/cohorts/phantom/goals.yaml")
    strict = goals.model_copy(
        update={"goals": [goals.goals[0].model_copy(update={"acceptable": None, "limit": 100.5})]}
    )
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "case_0007.zip").write_bytes(b"of a larger cohort")
    told: list[str] = []
    made = make_cohort(tmp_path / "raw", tmp_path / "raw.csv", poor_plans, strict, scale=HERE, tell=told.append)
    assert made.made == {}
    assert "none of 1 plans meets the goals; the last: missed PTV70 V66.5Gy" in made.dropped["case_0001"]
    assert list((tmp_path / "raw").glob("*.zip")) == []
    assert len(read_table(tmp_path / "raw.csv", RAW)) == 0
    assert told[-1].endswith("1 dropped")


def test_a_plan_that_the_machine_cannot_deliver_is_dropped_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, poor_plans: PhantomSettings
) -> None:
    optimise = phantom.optimise_plan

    def hasty(patient, machine, style, work, rng):  # type: ignore[no-untyped-def]
        planned = optimise(patient, machine, style, work, rng)
        first = planned.plan.arcs[0]
        leaf_mm = first.leaf_mm.copy()
        leaf_mm[7, 0, 2] -= 90.0
        arcs = (replace(first, leaf_mm=leaf_mm), *planned.plan.arcs[1:])
        return replace(planned, plan=replace(planned.plan, arcs=arcs))

    monkeypatch.setattr(phantom, "optimise_plan", hasty)
    made = make_cohort(tmp_path / "raw", tmp_path / "raw.csv", poor_plans, NO_GOALS, scale=HERE, tell=lambda _: None)
    assert made.made == {}
    assert "can't deliver its plan: Beam" in made.dropped["case_0001"]
    assert "control point 7: leaf 3 of bank X1" in made.dropped["case_0001"]
    assert not (tmp_path / "raw" / "case_0001.zip").exists()


def test_a_second_plan_is_firmer_on_what_the_first_missed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, poor_plans: PhantomSettings
) -> None:
    styles = []
    planned = phantom.optimise_plan

    def spy(patient, machine, style, work, rng):  # type: ignore[no-untyped-def]
        styles.append(style)
        return planned(patient, machine, style, work, rng)

    monkeypatch.setattr(phantom, "optimise_plan", spy)
    goal = {"structure": "Rectum", "statistic": "mean", "operator": "<=", "limit": 0.0, "unit": "Gy", "source": "test"}
    goals = GoalSet.model_validate({"name": "t", "protocol": "prostate_sib", "title": "t", "goals": [goal]})
    with pytest.raises(BadCase, match="none of 2 plans meets the goals"):
        make_case("case_0001", 1, tmp_path, poor_plans.model_copy(update={"attempts": 2}), goals)
    assert styles[1].organ_weight("Rectum") == pytest.approx(2.0 * styles[0].organ_weight("Rectum"))
    assert styles[1].target_weight == styles[0].target_weight
    firmer = firmer_style(styles[0], {"PTV70"}, {"PTV70": 70.0})
    assert firmer == replace(styles[0], target_weight=2.0 * styles[0].target_weight)


def test_the_table_of_goals_counts_only_those_who_have_the_structure() -> None:
    goal = {"structure": "Bowel", "statistic": "D0.03cc", "operator": "<=", "limit": 52, "unit": "Gy", "source": "test"}
    goals = GoalSet.model_validate({"name": "t", "protocol": "prostate_sib", "title": "t", "goals": [goal]})
    name = goals.goals[0].name
    made = {
        f"case_{k}": MadeCase("0" * 64, 1, {name: v}, 600.0) for k, v in enumerate((50.0, 53.0, 30.0, float("nan")))
    }
    row = tabulate_goals(Cohort(made, {}), goals).iloc[0]
    assert (row["met"], row["of"], row["median"], row["low"], row["high"]) == (2, 3, 50.0, 30.0, 53.0)
    assert tabulate_goals(Cohort({}, {}), goals).iloc[0]["of"] == 0


def test_planners_differ() -> None:
    styles = [draw_style(np.random.default_rng(seed)) for seed in range(12)]
    assert len({style.collimator_deg for style in styles}) > 6
    assert np.std([style.organ_weight("Rectum") for style in styles]) > 0.1
    assert np.std([style.falloff_mm for style in styles]) > 0.5


def test_the_default_cohort_has_its_dirt(protocol: Protocol) -> None:
    assert DIRT[NON_SIB].absent == ("PTV56",)
    assert any(dirt.absent == ("Bowel",) for dirt in DIRT.values())
    assert any(dirt.odd_dose_grid for dirt in DIRT.values())
    assert any(dirt.roll_deg == 5.0 for dirt in DIRT.values())
    assert max(DIRT) <= 24
    for dirt in DIRT.values():
        for name, alias in dirt.names.items():
            assert alias in protocol.structure(name).aliases


@pytest.mark.parametrize("cohort", ["phantom", "prostate", "openkbp"])
def test_the_goals_that_come_with_the_project_are_sound(repository: Path, cohort: str) -> None:
    layout = Layout(repository, cohort)
    assert lint_goals(load_goals(layout.goals), load_protocol(layout.protocol)) == []


def test_dciodvfy_finds_no_error(folder: Path, tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed: apt-get install dicom3tools")
    objects = open_case(folder / f"case_{FFP:04d}.zip")
    dose = objects["RD.dcm"]
    # It aborts on 32 bits, so it is given the same dose in 16.
    stored = dose.pixel_array
    dose.DoseGridScaling = f"{float(dose.DoseGridScaling) * stored.max() / 65535:.8E}"
    dose.BitsAllocated, dose.BitsStored, dose.HighBit = 16, 16, 15
    dose.PixelData = np.rint(stored * (65535 / stored.max())).astype("<u2").tobytes()
    for name in ("CT/0001.dcm", "RS.dcm", "RP.dcm", "RD.dcm"):
        path = tmp_path / Path(name).name
        objects[name].save_as(path)
        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        assert "Error" not in said.stdout + said.stderr, name
        warnings = {line for line in said.stderr.splitlines() if line.startswith("Warning")}
        assert all("needed to build DICOMDIR" in line for line in warnings), warnings


# It also uses what pydicom, numpy and scikit-image are about to drop.
@pytest.mark.filterwarnings("ignore")
def test_dicompyler_reads_the_same_dvh(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # dicompyler-core 0.5.6 asks for a function that pydicom 3 no longer has.
    dicomio = importlib.import_module("pydicom.dicomio")
    monkeypatch.setattr(dicomio, "read_file", pydicom.dcmread, raising=False)
    dvhcalc = pytest.importorskip("dicompylercore.dvhcalc")
    path = folder / "case_0001.zip"
    objects = open_case(path)
    ours = measured_by_ours(path)
    numbers = {str(roi.ROIName): int(roi.ROINumber) for roi in objects["RS.dcm"].StructureSetROISequence}
    for name, tolerance in (("PTV70", 0.5), ("Bladder", 0.7), ("Femur_L", 0.5), ("Rectum", 0.7)):
        theirs = dvhcalc.get_dvh(objects["RS.dcm"], objects["RD.dcm"], numbers[name])
        ours_mean, ours_cc = ours[name]
        assert float(theirs.volume) == pytest.approx(ours_cc, rel=0.06), name
        assert float(theirs.mean) == pytest.approx(ours_mean, abs=tolerance), name


def measured_by_ours(path: Path) -> dict[str, tuple[float, float]]:
    """Mean dose in Gy and volume in cm³ of each structure as our own ingest reads them."""
    protocol = load_protocol(Path(__file__).resolve().parents[2] / "validation/cohorts/phantom/protocol.yaml")
    case = convert_case(path, Origin(path.stem), protocol)
    assert case.dose_gy is not None
    masks = dict(zip(case.structure_names, case.masks, strict=True))
    return {
        name: (float(case.dose_gy[mask].mean()), float(mask.sum() * case.grid.voxel_volume_cc))
        for name, mask in masks.items()
        if mask.any()
    }

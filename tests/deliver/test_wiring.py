"""What the rooms of delivery hand on: which cases, which criteria, which rows; and what an earlier run leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import read_json
from doseledger.core.grid import Grid
from doseledger.core.pool.fanout import Outcome
from doseledger.core.project.protocol import Goal, GoalSet
from doseledger.deliver import cohort, dose, gap, nifti, plan, series, structures
from doseledger.deliver.cohort import Delivered, deliver_cohort
from doseledger.deliver.dose import DicomRequest, find_patients, predict_folder, read_prescription_options
from doseledger.deliver.gap import dose_gap
from doseledger.deliver.masks import MaskSet
from doseledger.deliver.measured import Yardstick, measure_dose
from doseledger.deliver.nifti import label_values, segment_images
from doseledger.deliver.series import SeriesRequest, describe_structures, segment_patients
from doseledger.deliver.structure_objects import Structure, _algorithm, _said
from doseledger.deliver.structures import StructuresRequest, _is_pseudonymous, _placed, _summary, _wanted
from doseledger.deliver.wishes import objective_of, with_wishes
from doseledger.dosimetry.gamma.criteria import GammaCriteria

FAILED = BadCase("b", "no CT")


def goal(statistic: str, operator: str, limit: float, unit: str, **more: Any) -> Goal:
    return Goal.model_validate({"structure": "Rectum", "statistic": statistic, "operator": operator, "limit": limit,
                                "unit": unit, "source": "a test", **more})  # fmt: skip


@pytest.mark.parametrize(("asked", "row"), [
    (goal("V40Gy", "<=", 20.0, "%"), ("dvh_max", 40.0, 1000.0, 19.4)),
    (goal("V40Gy", "<=", 20.0, "cc"), ("dvh_max", 40.0, 1000.0, 38.8)),
    (goal("V40Gy", ">=", 20.0, "cc"), ("dvh_min", 40.0, 1000.0, 40.0)),
    (goal("D10%", "<=", 40.0, "Gy"), ("dvh_max", 38.8, 1000.0, 10.0)),
    (goal("D10cc", ">=", 40.0, "Gy"), ("dvh_min", 40.0, 1000.0, 20.0)),
    (goal("max", "<=", 40.0, "Gy"), ("max_dose", 38.8, 1000.0, None)),
    (goal("min", ">=", 40.0, "Gy"), ("min_dose", 40.0, 1000.0, None)),
    (goal("mean", "<=", 40.0, "Gy"), ("mean_max", 38.8, 300.0, None)),
])  # fmt: skip
def test_a_wish_becomes_one_objective_with_its_weight(asked: Goal, row: tuple[Any, ...]) -> None:
    found = objective_of(asked, 50.0, is_target=False)
    kind, dose_gy, weight, volume = row
    assert (found.kind, found.dose_gy, found.weight) == (kind, pytest.approx(dose_gy), weight)
    assert found.volume_percent == (None if volume is None else pytest.approx(volume))


@pytest.mark.parametrize("asked", [
    goal("mean", ">=", 40.0, "Gy"), goal("max", ">=", 40.0, "Gy"), goal("min", "<=", 40.0, "Gy"),
    goal("mean", "<=", 40.0, "%"), goal("max", "<=", 40.0, "%"), goal("min", ">=", 40.0, "%"), goal("D10%", "<=",
    40.0, "%"),
])  # fmt: skip
def test_what_has_no_objective_is_refused(asked: Goal) -> None:
    with pytest.raises(BadInput, match="a plan can be optimised for"):
        objective_of(asked, 50.0, is_target=False)


def test_a_wish_takes_the_place_of_the_same_question_alone() -> None:
    asked = [
        goal("D10%", "<=", 40.0, "Gy"),
        goal("D10%", ">=", 30.0, "Gy"),
        goal("D10%", "<=", 40.0, "Gy", minus=["PTV"]),
    ]
    whole = GoalSet(name="g", protocol="p", title="g", goals=asked)
    wish, more = goal("D10%", "<=", 35.0, "Gy"), goal("mean", "<=", 35.0, "Gy")
    assert with_wishes(whole, [more, wish]).goals == [wish, *asked[1:], more]


def test_the_gap_is_judged_by_three_criteria_of_the_predicted_maximum(
    make_case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        gap,
        "pass_rate_percent",
        lambda pair, wanted: asked.append(wanted) or SimpleNamespace(pass_rate_percent=12.345678),
    )
    case = make_case()
    assert case.dose_gy is not None
    found = dose_gap(case, case.dose_gy, case.dose_gy)
    wanted = [GammaCriteria(percent, mm, 10.0, False, 10, 2.0) for percent, mm in ((3.0, 3.0), (3.0, 2.0), (2.0, 2.0))]
    assert asked == wanted
    assert found == {"gamma_3_3_percent": 12.3457, "gamma_3_2_percent": 12.3457, "gamma_2_2_percent": 12.3457,
                     "mae_above_10_percent_gy": 0.0, "mae_body_gy": 0.0}  # fmt: skip


def part(tmp_path: Path) -> Delivered:
    return Delivered(tmp_path / "raw", tmp_path / "cases", tmp_path / "predictions", tmp_path / "splits.csv", 1, 2)


def test_the_test_cases_of_a_fold_are_planned_in_order_and_summed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(2, 1, "b", "test", "2"), (2, 1, "a", "test", "1"), (2, 0, "c", "test", "3"), (2, 1, "d", "val", "4")]
    table = pd.DataFrame(rows, columns=["repeat", "fold", "case_id", "split", "sha256"])
    asked: list[Any] = []
    outcomes = iter([Outcome({"a": {"n": 1}}, {"b": FAILED}), Outcome({}, {"b": FAILED})])
    monkeypatch.setattr(cohort, "read_table", lambda path, schema: table)
    monkeypatch.setattr(cohort, "find_sources", lambda raw: {"a": raw / "a.zip"})
    monkeypatch.setattr(cohort, "over_cases", lambda *words, **more: asked.append((words, more)) or next(outcomes))
    monkeypatch.setattr(cohort, "describe_delivery", lambda one: ["first", "second"])
    monkeypatch.setattr(cohort, "summarise_deliveries", lambda done, failed: {"done": done, "failed": failed})
    lines: list[str] = []
    request: Any = SimpleNamespace(protocol=SimpleNamespace(source="dicom", name="p"))
    scale: Any = "here"
    here, out = part(tmp_path), tmp_path / "out"
    found = deliver_cohort(here, out, tmp_path / "metrics.json", request, scale=scale, tell=lines.append)
    assert found == {"done": {"a": {"n": 1}}, "failed": {"b": "no CT"}} == read_json(tmp_path / "metrics.json")
    assert lines == ["first", "second"]
    (work, arguments, used), more = asked[0]
    assert (work, used, more) == (cohort._deliver, "here", {"tell": lines.append})
    sources = {"a": here.raw / "a.zip"}
    assert list(arguments.items()) == [
        (name, (name, sha, here, sources, request, out)) for name, sha in (("a", "1"), ("b", "2"))
    ]
    with pytest.raises(BadInput, match="no test case could be planned: b: no CT"):
        deliver_cohort(here, out, tmp_path / "metrics.json", request, scale=scale, tell=lines.append)
    with pytest.raises(BadInput, match=r"splits\.csv: no test cases in fold 3, repeat 2"):
        deliver_cohort(
            Delivered(*(here.raw,) * 3, here.splits, 3, 2), out, out, request, scale=scale, tell=lines.append
        )


def test_one_case_is_planned_from_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(cohort, "refuse_changed", lambda *words: asked.append(words))
    monkeypatch.setattr(cohort, "deliver_case", lambda *words: asked.append(words) or {"ok": True})
    here, request = part(tmp_path), SimpleNamespace()
    sources = {"a": tmp_path / "raw" / "a.zip"}
    assert cohort._deliver("a", "1", here, sources, request, tmp_path / "out") == {"ok": True}  # type: ignore[arg-type]
    case, prediction = tmp_path / "cases" / "a.npz", tmp_path / "predictions" / "a.npz"
    assert asked == [("a", case, "1"), (sources["a"], case, prediction, request, tmp_path / "out" / "a")]
    with pytest.raises(BadCase, match="b: no folder or zip of its DICOM in"):
        cohort._deliver("b", "1", here, sources, request, tmp_path / "out")  # type: ignore[arg-type]


def test_what_an_earlier_run_wrote_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor: Any = SimpleNamespace(
        says_labels=True, sha256="f" * 64, settings={"a": 1},
        checkpoint=SimpleNamespace(model="seg", epoch=4, structure_names=("A", "B")),
    )  # fmt: skip
    protocol: Any = SimpleNamespace(
        name="p", source="dicom", modality="CT", structures=[SimpleNamespace(name="A", label=7),
        SimpleNamespace(name="B", label=3)],
        prescription_gy={"A": 60.0}, n_fractions=30, model_dump=lambda mode: {},
    )  # fmt: skip
    outcome = Outcome({"a": {"voxels": {"7": 5}}}, {"b": FAILED})
    told: list[Any] = []
    for module in (series, nifti, dose):
        monkeypatch.setattr(module, "over_cases", lambda *words, **more: told.append(more) or outcome)
    record = {"model": "seg", "checkpoint_sha256": "f" * 64, "settings": {"a": 1}, "segmented": outcome.done,
              "failed": {"b": "no CT"}}  # fmt: skip

    def stale(*names: str) -> list[Path]:
        paths = [tmp_path / name for name in names]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"old")
        return paths

    old = stale("s/a/rtstruct.dcm", "s/a/seg.dcm", "s/b/structures.json")
    kept = stale("s/c/seg.dcm")
    request = SeriesRequest(predictor, protocol, StructuresRequest())
    lines: list[str] = []
    found = segment_patients({"a": tmp_path, "b": tmp_path}, request, tmp_path / "s", lines.append)
    assert found == {**record, "protocol": "p"} == read_json(tmp_path / "s" / "segmentations.json")
    assert [path.exists() for path in (*old, *kept)] == [False, False, False, True]
    monkeypatch.setattr(nifti, "find_images", lambda source: {"a": source / "a.nii", "b": source / "b.nii"})
    found = segment_images(predictor, protocol, tmp_path, tmp_path / "n", lines.append)
    assert found == {**record, "labels": {"A": 7, "B": 3}} == read_json(tmp_path / "n" / "segmentations.json")
    assert [nifti._found(one) for one in ({"voxels": {"7": 5, "3": 2}}, {"voxels": {}})] == [
        "7 voxels labelled",
        "nothing was found on it",
    ]
    names = ("rtdose.dcm", "rtplan.dcm", "prediction.json", "report.html", "report.pdf")
    old = stale("d/a.npz", *(f"d/a/{name}" for name in names))
    asked = DicomRequest(predictor, protocol, SimpleNamespace(compared="by name"), None, 16, origin={"cohort": "c"})  # type: ignore[arg-type]
    summary = predict_folder({"a": tmp_path, "b": tmp_path}, asked, tmp_path / "d", lines.append)
    assert not any(path.exists() for path in old)
    common = {key: summary[key] for key in summary if key not in ("predicted", "failed")}
    assert (summary["predicted"], summary["failed"]) == (outcome.done, {"b": "no CT"})
    assert read_json(tmp_path / "d" / "b" / "prediction.json") == {"case_id": "b", **common, "failed": "no CT"}
    wanted = {"model": "seg", "epoch": 4, "checkpoint_sha256": "f" * 64, "cohort": "c", "protocol": "p",
    "n_fractions": 30,
              "prescription_gy": {"A": 60.0}, "settings": {"a": 1}, "seen_before_was_judged_by": "by name"}  # fmt: skip
    assert {key: common[key] for key in wanted} == wanted
    assert [list(more) for more in told] == [["tell"], ["tell", "note"], ["tell"]]


def test_labels_are_the_protocols_where_it_has_one_for_each() -> None:
    protocol: Any = SimpleNamespace(
        structures=[SimpleNamespace(name="A", label=7), SimpleNamespace(name="B", label=None)]
    )
    assert label_values(("A",), protocol) == {"A": 7}
    assert label_values(("B", "A"), protocol) == {"B": 1, "A": 2}
    assert label_values(("A", "C"), protocol) == {"A": 1, "C": 2}


def test_a_patient_is_named_by_the_folder_or_the_zip(tmp_path: Path) -> None:
    (tmp_path / "anon.1").mkdir()
    (tmp_path / "anon_2.zip").write_bytes(b"")
    assert find_patients(tmp_path / "anon.1", batch=False) == {"anon.1": (tmp_path / "anon.1").resolve()}
    assert find_patients(tmp_path / "anon_2.zip", batch=False) == {"anon_2": (tmp_path / "anon_2.zip").resolve()}
    with pytest.raises(BadInput, match="no such folder or zip of a patient"):
        find_patients(tmp_path / "gone", batch=False)
    assert read_prescription_options([" PTV70=70 ", "PTV56=56.5"]) == {"PTV70": 70.0, "PTV56": 56.5}
    for options in (["PTV70=70", "PTV70=71"], ["PTV70=-1"], ["=70"], ["PTV70"]):
        with pytest.raises(BadInput, match="wanted TARGET=GY, each target once"):
            read_prescription_options(options)


def test_a_dose_is_measured_structure_by_structure_and_draw_by_draw(make_case: Callable[..., Case]) -> None:
    case = make_case()
    assert case.dose_gy is not None
    where = case.body
    levels = np.array([0.95, 1.0, 1.1])
    steps = np.rint(case.dose_gy[where] * levels[:, None] / 0.5).astype(np.uint16)
    arrays: dict[str, Any] = {"dose_gy": case.dose_gy, "samples": steps, "sampled": where.astype(np.uint8),
                              "sample_step_gy": np.asarray(0.5)}  # fmt: skip
    kinds = {"PTV70": "target", "Rectum": "organ", "Bowel": "organ"}
    protocol: Any = SimpleNamespace(
        name="p", prescription_gy={"PTV70": 70.0}, n_fractions=28,
        structures=[SimpleNamespace(name=name, kind=kind) for name, kind in kinds.items()],
    )  # fmt: skip
    asked = GoalSet(name="g", protocol="p", title="g", goals=[
        goal("mean", "<=", 1.0, "Gy", acceptable=90.0), goal("mean", "<=", 1.0, "Gy", structure="Bowel", gating=False),
    ])  # fmt: skip
    yardstick = Yardstick({"target": ["mean"], "organ": ["mean", "V40Gy"]}, protocol, asked)
    found = measure_dose(case, arrays, protocol, yardstick)
    rows = []
    for name in ("PTV70", "Rectum"):
        inside = case.mask(name)
        drawn = [step * 0.5 for step in steps[:, inside[where]]]
        rows.append((name, "mean", "Gy", case.dose_gy[inside].mean(), np.std([d.mean() for d in drawn], ddof=1)))
        if name == "Rectum":
            shares = [100.0 * (d >= 40.0).mean() for d in drawn]
            rows.append((name, "V40Gy", "%", 100.0 * (case.dose_gy[inside] >= 40.0).mean(), np.std(shares, ddof=1)))
    assert [(row["structure"], row["statistic"], row["unit"]) for row in found["dvh"]] == [row[:3] for row in rows]
    assert [row["value"] for row in found["dvh"]] == pytest.approx([row[3] for row in rows], abs=2e-3)
    assert [row["sd"] for row in found["dvh"]] == pytest.approx([row[4] for row in rows], abs=0.05)
    rectum, bowel = found["goals"]
    assert rectum == {
        "goal": "Rectum mean ≤ 1 Gy", "structure": "Rectum", "unit": "Gy", "gating": True, "met": False,
        "acceptable": True,
        "value": pytest.approx(float(rows[1][3]), abs=1e-3), "reason": "",
    }  # fmt: skip
    assert (bowel["gating"], bowel["value"], bowel["met"], bowel["acceptable"]) == (False, None, None, None)
    assert bowel["reason"] != ""
    # One draw alone has no spread.
    single = measure_dose(case, {**arrays, "samples": steps[:1]}, protocol, yardstick)
    assert {row["sd"] for row in single["dvh"]} == {None}


GRID = Grid((4, 6, 6), (3.0, 2.0, 2.0), (0.0, 0.0, 0.0))


def masks_of(*names: str, **changes: Any) -> MaskSet:
    mask = np.zeros(GRID.shape_zyx, bool)
    mask[1:3, 1:4, 1:4] = True
    return MaskSet("case_1", GRID, dict.fromkeys(names, mask), **changes)


def test_the_masks_that_are_asked_for_are_taken_and_strangers_named() -> None:
    found = masks_of("A", "B", absent=["C"])
    assert list(_wanted(found, StructuresRequest()).masks) == ["A", "B"]
    assert list(_wanted(found, StructuresRequest(only=("B", "C"), largest_part=("all",))).masks) == ["B"]
    with pytest.raises(BadInput, match="case_1: no structure D, E; there are A, B"):
        _wanted(found, StructuresRequest(only=("E",), fill_holes=("D",)))
    with pytest.raises(BadCase, match="none of the structures that were asked for is there"):
        _wanted(found, StructuresRequest(only=("C",)))
    bare = StructuresRequest()
    assert (bare.formats, bare.only, bare.largest_part, bare.fill_holes, bare.own_names, bare.identity) == (
        ("rtstruct", "seg"), (), (), (), False, False,
    )  # fmt: skip


def test_structures_are_cleaned_as_asked_and_keep_their_names_where_two_are_alike() -> None:
    found = masks_of(
        "Rectum", "Rektum", "PTV70", prescription_gy={"PTV70": 70.0}, cleaned={"PTV70": "largest part kept"}
    )
    for mask in found.masks.values():
        mask[1, 5, 5] = True
    placed, reasons = _placed(found, GRID, StructuresRequest(largest_part=("Rectum",), fill_holes=("all",)))
    assert reasons == {}
    assert [one.name for one in placed] == ["Rectum", "Rektum", "PTV70"]
    assert [int(one.mask.sum()) for one in placed] == [18, 19, 19]
    assert [one.volume_cc for one in placed] == pytest.approx([0.216, 0.228, 0.228])
    assert ("part" in placed[0].cleaned, placed[2].cleaned) == (
        True, "largest part kept, holes filled (+0 voxels)",
    )  # fmt: skip
    own, _ = _placed(found, GRID, StructuresRequest(own_names=True))
    assert [one.described.name for one in own] == ["Rectum", "Rektum", "PTV70"]


@pytest.mark.parametrize(("removed", "patient", "pseudonym", "is_one"), [
    ("YES", "4711", "", True), ("NO", "4711", "", False), ("", "anon", "anon", True), ("", "4711", "anon", False),
    ("", "", "", False),
])  # fmt: skip
def test_an_image_names_nobody_where_it_says_so_or_has_the_pseudonym(
    removed: str, patient: str, pseudonym: str, is_one: bool
) -> None:
    image: Any = SimpleNamespace(PatientIdentityRemoved=removed, PatientID=patient)
    image.get = lambda name, default=None: getattr(image, name, default)
    assert _is_pseudonymous(image, masks_of("A", pseudonym=pseudonym)) is is_one


def test_a_summary_has_a_row_a_structure_and_a_warning_for_what_is_odd() -> None:
    described: Any = [SimpleNamespace(name=name, is_standard=name == "Rectum") for name in ("Rectum", "Odd")]
    mask = masks_of("A").masks["A"]
    rows = [
        Structure(d.name, d, mask, said, cc) for d, said, cc in zip(described, ("", "holes"), (0.216, 0.2), strict=True)
    ]
    found = _summary(masks_of("A", absent=["Z"]), rows, {"Rectum": 0.21654321}, GRID)
    assert found == {
        "case_id": "case_1", "absent": ["Z"],
        "structures": {
            "Rectum": {"name": "Rectum", "volume_cc": 0.216, "image_volume_cc": 0.216, "written_volume_cc": 0.2165,
            "cleaned": ""},
            "Odd": {"name": "Odd", "volume_cc": 0.2, "image_volume_cc": 0.216, "written_volume_cc": None,
            "cleaned": "holes"},
        },
        "warnings": ["Odd: the image's voxels change its volume by +8.0 %", "Odd is no name of TG-263",
                     "a prediction holds no image: only its place was compared with this one's"],
    }  # fmt: skip
    assert _summary(masks_of("A", knows_image=True), rows[:1], {}, GRID)["warnings"] == []
    assert structures.WORTH_A_WORD_PERCENT == 1.0


def test_how_a_structure_came_about_is_said_in_its_objects() -> None:
    described: Any = SimpleNamespace(name="A")
    plain, clean = (Structure("A", described, np.zeros(1, bool), said, 1.0) for said in ("", "holes filled"))
    own, model = masks_of("A"), masks_of("A", model="seg")
    assert [_algorithm(found, one) for found in (own, model) for one in (plain, clean)] == [
        "MANUAL", "SEMIAUTOMATIC", "AUTOMATIC", "AUTOMATIC",
    ]  # fmt: skip
    assert [_said(found, one) for found in (own, model) for one in (plain, clean)] == [
        "as in the case; not cleaned", "as in the case; holes filled", "predicted; not cleaned",
        "predicted; holes filled",
    ]  # fmt: skip


def test_what_was_found_on_a_series_is_told_line_by_line() -> None:
    done = {
        "structures": {"A": {"name": "A_1", "image_volume_cc": 1.234, "cleaned": ""}, "B": {"reason": "too small"},
                       "C": {"name": "C", "image_volume_cc": 5.0, "cleaned": "holes filled"}},
        "absent": ["D"], "warnings": ["odd"],
    }  # fmt: skip
    assert describe_structures({"segmented": {"p": done}}) == [
        "p: A_1 1.23 cm³", "p: B is left out: too small", "p: C 5.00 cm³ (holes filled)", "p: D was not found",
        "WARNING: p: odd",
    ]  # fmt: skip


@pytest.mark.parametrize(("prescription", "fractions"), [({}, 28), ({"PTV70": 70.0}, None)])
def test_a_plan_asks_for_a_prescription_and_fractions(prescription: dict[str, float], fractions: int | None) -> None:
    case: Any = SimpleNamespace(case_id="a", grid=GRID, prescription_gy=prescription, n_fractions=fractions)
    prediction: Any = SimpleNamespace(case_id="a", grid=GRID)
    with pytest.raises(BadCase, match="a: there is no prescription to plan for"):
        plan._check_same(case, prediction)
    whole: Any = SimpleNamespace(case_id="a", grid=GRID, prescription_gy={"PTV70": 70.0}, n_fractions=28)
    assert plan._check_same(whole, prediction) == 28

"""The dose on predicted contours beside that on drawn ones: how far it moves, and which goals flip."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from doseledger.core.case import Case, map_member, write_npz
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import sha256_of_file
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import Goal, GoalSet
from doseledger.core.tables import SPLITS, write_table
from doseledger.evaluate.contours import Loop, describe_contours, measure_contours, with_contours
from doseledger.evaluate.predictions import LabelPrediction
from doseledger.learn.data.inputs import OpenCase
from doseledger.learn.predict.predictor import Predictor

CLIP_MM = 50.0
DRAWN = ("Rectum", "Bladder")
RECTUM = Goal(structure="Rectum", statistic="mean", operator="<=", limit=15.0, unit="Gy", source="made up")
COVERED = Goal(structure="PTV70", statistic="D95%", operator=">=", limit=66.5, unit="Gy", source="made up")
GOALS = GoalSet(name="made_up", protocol="prostate_sib", title="made up", goals=[RECTUM, COVERED])


def spares_the_rectum(case: OpenCase) -> dict[str, Any]:
    """70 Gy everywhere in the body, 10 Gy in what is contoured as rectum."""
    masks = map_member(case.file.path, "masks")
    rectum = np.asarray(masks[case.structure_names.index("Rectum")]) > 0
    body = np.asarray(map_member(case.file.path, "body")) > 0
    return {"dose_gy": np.where(rectum, 10.0, np.where(body, 70.0, 0.0)).astype(np.float32)}


def dose_model(**changes: Any) -> Predictor:
    checkpoint: Any = SimpleNamespace(model="dose", beams=None, trained_on={}, selected_on={})
    return replace(Predictor(checkpoint, "d" * 64, {}, spares_the_rectum), **changes)


def labels_of(case: Case, shift: int) -> np.ndarray:
    labels = np.zeros(case.grid.shape_zyx, dtype=np.uint8)
    for value, name in enumerate(DRAWN, start=1):
        labels[np.roll(case.mask(name), shift, axis=0)] = value
    return labels


@dataclass
class Made:
    """Two test cases with doses on drawn contours, and contours that lie `shift` slices off."""

    layout: Layout
    cases: dict[str, Case]

    def loop(self) -> Loop:
        return Loop(self.layout.model("dose"), self.layout.model("seg"), GOALS, CLIP_MM, 0, 0)

    def draw(self, shift: int, **meta: Any) -> None:
        for case in self.cases.values():
            arrays = {"labels": labels_of(case, shift), "structure_names": np.asarray(DRAWN)}
            self.write("seg", case, arrays, {"checkpoint_sha256": "5" * 64, **meta})

    def write(self, model: str, case: Case, arrays: dict[str, Any], meta: dict[str, Any]) -> None:
        path = self.layout.model(model).predictions / f"{case.case_id}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        said = {
            "case_id": case.case_id, "case_sha256": sha256_of_file(self.layout.cases / path.name),
            "trained_on": [], "selected_on": [], "model": model,
        }  # fmt: skip
        placed = {"spacing_mm": np.asarray(case.grid.spacing_mm), "origin_mm": np.asarray(case.grid.origin_mm)}
        write_npz(path, {**arrays, **placed, "meta": np.asarray(json.dumps(said | meta))})


@pytest.fixture
def made(make_case: Callable[..., Case], tmp_path: Path) -> Made:
    layout = Layout(tmp_path, "phantom")
    found = Made(layout, {name: make_case(name, seed=number) for number, name in enumerate(("case_1", "case_2"))})
    rows = []
    for name, case in found.cases.items():
        path = layout.cases / f"{name}.npz"
        case.save(path)
        rows.append((0, 0, name, f"phantom_{name}", "A", "test", sha256_of_file(path)))
        dose = np.where(case.mask("Rectum"), 10.0, np.where(case.body, 70.0, 0.0)).astype(np.float32)
        found.write("dose", case, {"dose_gy": dose}, {"checkpoint_sha256": "d" * 64})
    write_table(layout.splits, pd.DataFrame(rows, columns=list(SPLITS.columns)), SPLITS)
    return found


def test_contours_as_drawn_move_no_dose_and_flip_no_goal(made: Made) -> None:
    made.draw(0)
    found = measure_contours(made.loop(), dose_model(), print)
    assert (found["mae_body_gy"], found["n_flipped"], found["n_seen_flipped"], found["dice"]) == (0.0, 0, 0, 1.0)
    assert (found["n_goals"], found["contours_by"], found["structures"]) == (4, "seg", list(DRAWN))
    assert found["d95_change_gy"]["PTV70"] == {"mean": 0.0, "largest": 0.0}
    assert found["plan_mae_body_gy"]["drawn"] == found["plan_mae_body_gy"]["predicted"] > 0


def test_a_rectum_drawn_elsewhere_costs_its_goal_and_the_one_who_drew_it_does_not_see_it(made: Made) -> None:
    made.draw(6)
    found = measure_contours(made.loop(), dose_model(), print)
    row = found["cases"]["case_1"]
    case = made.cases["case_1"]
    moved = np.roll(case.mask("Rectum"), 6, axis=0) ^ case.mask("Rectum")
    off = np.where(np.roll(case.mask("Rectum"), 6, axis=0) & ~case.body, 10.0, 60.0)[moved & case.body].sum()
    assert row["mae_body_gy"] == pytest.approx(off / case.body.sum(), abs=0.01)
    assert [flip["goal"] for flip in row["flipped"]] == ["Rectum mean ≤ 15 Gy"]
    assert row["flipped"][0]["drawn"] == 10.0
    assert row["flipped"][0]["predicted"] > 15.0
    # Whoever judges by the predicted contours sees the rectum spared.
    assert (row["n_flipped"], row["seen_flipped"]) == (1, [])
    assert (found["n_flipped"], found["flips"]) == (2, {"Rectum mean ≤ 15 Gy": 2})
    lines = describe_contours(found)
    assert lines[-1] == "2 of 4 goals flip on the drawn contours, 0 for whoever sees the predicted ones alone"


def test_a_structure_that_was_not_found_is_absent_to_the_model_and_its_goal_flips_where_it_is_seen(made: Made) -> None:
    for case in made.cases.values():
        labels = labels_of(case, 0)
        labels[labels == 1] = 0
        arrays = {"labels": labels, "structure_names": np.asarray(DRAWN)}
        made.write("seg", case, arrays, {"checkpoint_sha256": "5" * 64})
    found = measure_contours(made.loop(), dose_model(), print)
    assert (found["n_flipped"], found["n_seen_flipped"]) == (2, 2)
    assert found["cases"]["case_1"]["seen_flipped"][0]["predicted"] is None


def test_distances_are_those_of_the_full_grid_and_others_stay_as_they_were(make_case: Callable[..., Case]) -> None:
    whole = make_case()
    box = (slice(4, 20), slice(5, 35), slice(6, 44))
    cut = replace(
        whole, grid=whole.grid.inside(box), ct_hu=whole.ct_hu[box], masks=whole.masks[(slice(None), *box)],
        sdf_mm=whole.sdf_mm[(slice(None), *box)], body=whole.body[box], valid_dose=whole.valid_dose[box],
        dose_gy=None if whole.dose_gy is None else whole.dose_gy[box], crop_start_zyx=(4, 5, 6),
    )  # fmt: skip
    nothing: frozenset[str] = frozenset()
    found = LabelPrediction("c", "", "", labels_of(cut, 0), DRAWN, cut.grid, nothing, nothing, {})
    altered = with_contours(cut, found, CLIP_MM)
    place = whole.structure_names.index("Femur_L")
    assert np.array_equal(altered.masks, cut.masks)
    assert np.array_equal(altered.sdf_mm[place], cut.sdf_mm[place])
    rectum = whole.structure_names.index("Rectum")
    # Ours stops half a voxel sooner: the fixture's distances are between voxels' centres.
    assert np.abs(altered.sdf_mm[rectum].astype(float) - cut.sdf_mm[rectum].astype(float)).max() <= 6.1
    # The rectum goes on beyond the crop's ends: no surface there.
    inside = cut.mask("Rectum")[0]
    assert (altered.sdf_mm[rectum][0][inside] < 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: made.draw(0, case_sha256="a" * 64), "the prediction is of the case as it was"),
        (
            lambda made: made.draw(0, trained_on=[sha256_of_file(made.layout.cases / "case_1.npz")]),
            "the model was trained on this case",
        ),
        (lambda made: None, r"no prediction case_1\.npz; run predict"),
    ],
    ids=["stale", "seen", "absent"],
)
def test_contours_that_say_nothing_are_refused_by_name(
    made: Made, change: Callable[[Made], None], message: str
) -> None:
    change(made)
    with pytest.raises(BadCase, match=rf"case_1.*{message}"):
        measure_contours(made.loop(), dose_model(), print)


def test_doses_of_another_checkpoint_and_models_of_the_wrong_kind_are_refused(made: Made) -> None:
    made.draw(0)
    with pytest.raises(BadCase, match="dose predicted it with another checkpoint"):
        measure_contours(made.loop(), dose_model(sha256="e" * 64), print)
    with pytest.raises(BadInput, match="dose says contours; name a dose model"):
        measure_contours(made.loop(), dose_model(says_labels=True), print)
    with pytest.raises(BadInput, match="no test case in fold 3"):
        measure_contours(replace(made.loop(), fold=3), dose_model(), print)

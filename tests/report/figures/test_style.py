"""Figures: what they show, where left and right are, and that equal data give equal bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fixtures.comparisons import compared, without_gamma
from matplotlib.figure import Figure
from matplotlib.text import Text

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.project.protocol import Goal
from doseledger.report.figures.curves import (  # fmt: skip
    StructureCurves,
    plot_differences,
    plot_dvh,
    plot_training,
    training_panels,
)
from doseledger.report.figures.slices import plot_slices
from doseledger.report.figures.style import FONT_PT, data_uri, house_style, new_figure, save_figure
from doseledger.report.figures.views import (
    PLANES,
    Comparison,
    View,
    box_of_interest,
    isocentre_index,
    isodose_levels,
    levels_of_targets,
)

MakeCase = Callable[..., Case]
RECTUM = Goal(structure="Rectum", statistic="V45Gy", operator="<=", limit=45, unit="%", source="a test")


@pytest.fixture
def comparison(make_case: MakeCase) -> Comparison:
    case = make_case()
    assert case.dose_gy is not None
    return compared(case, (case.dose_gy * 0.97).astype(np.float32))


@pytest.fixture
def slices(comparison: Comparison) -> Figure:
    with house_style():
        return plot_slices(comparison, {})


def curves(name: str, *, is_target: bool) -> StructureCurves:
    dose = np.linspace(0, 80, 161)
    percent = np.clip(100 * (75 - dose) / 20, 0, 100) if is_target else np.clip(100 - 2 * dose, 0, 100)
    return StructureCurves(name, is_target, "#E02000", dose, percent, dose * 1.01, percent)


def history(**columns: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"epoch": [1, 2, 3], **columns})


def test_every_word_in_the_slices_is_at_least_twelve_points(slices: Figure) -> None:
    sizes = {text.get_text(): text.get_fontsize() for text in slices.findobj(Text) if text.get_text().strip()}
    assert sizes
    assert min(sizes.values()) >= FONT_PT


def test_the_axial_picture_has_the_patients_left_on_its_right_and_anterior_on_top(
    comparison: Comparison, slices: Figure
) -> None:
    case = comparison.case
    axial = slices.axes[0]
    image = axial.images[0]
    femurs = {name: np.argwhere(case.mask(name)).mean(axis=0) for name in ("Femur_L", "Femur_R", "Rectum", "Bladder")}
    place = {name: axial.transData.transform(case.grid.index_to_mm(index)[[2, 1]]) for name, index in femurs.items()}
    assert place["Femur_L"][0] > place["Femur_R"][0]
    assert place["Bladder"][1] > place["Rectum"][1]
    # The picture is turned as the axes are.
    left, right, bottom, top = image.get_extent()
    assert left < right
    assert bottom > top
    assert image.origin == "upper"
    assert {text.get_text() for text in axial.texts} == {"R", "L", "A", "P"}


def test_pixels_of_every_plane_lie_where_their_voxels_are(make_case: MakeCase) -> None:
    case = make_case()
    index = isocentre_index(case)
    whole = (slice(None), slice(None), slice(None))
    position = np.stack(np.meshgrid(*case.grid.axes_mm(), indexing="ij"))
    for plane in PLANES:
        view = View(case.grid, plane, index, whole)
        rows, columns = view.cut(position[plane.rows_axis]), view.cut(position[plane.columns_axis])
        np.testing.assert_allclose(rows, np.broadcast_to(view.rows_mm[:, None], rows.shape))
        np.testing.assert_allclose(columns, np.broadcast_to(view.columns_mm[None, :], columns.shape))


def test_coronal_and_sagittal_pictures_have_the_head_up(slices: Figure) -> None:
    for row, letters in ((1, {"R", "L", "S", "I"}), (2, {"A", "P", "S", "I"})):
        axis = slices.axes[3 * row]
        assert {text.get_text() for text in axis.texts} == letters
        bottom, top = axis.get_ylim()
        assert bottom < top
        assert axis.images[0].origin == "lower"


def test_pictures_keep_the_patients_proportions_on_uneven_voxels(make_case: MakeCase) -> None:
    case = make_case()
    grid = dataclasses.replace(case.grid, spacing_mm=(3.0, 6.0, 6.0))
    case = dataclasses.replace(case, grid=grid)
    assert case.dose_gy is not None
    with house_style():
        figure = plot_slices(compared(case, case.dose_gy), {})
    for axis in figure.axes[:9]:
        box = axis.get_position()
        width, height = box.width * figure.get_figwidth(), box.height * figure.get_figheight()
        (x0, x1), (y0, y1) = axis.get_xlim(), axis.get_ylim()
        assert width / abs(x1 - x0) == pytest.approx(height / abs(y1 - y0), rel=1e-6)


def test_the_difference_is_prediction_minus_plan(comparison: Comparison, slices: Figure) -> None:
    shown = slices.axes[1].images[0].get_array()
    z = isocentre_index(comparison.case)[0]
    _, rows, columns = box_of_interest(comparison.case, comparison.plan_gy, comparison.predicted_gy)
    expected = (comparison.predicted_gy - comparison.plan_gy)[z, rows, columns]
    assert float(shown.min()) == pytest.approx(float(expected.min()), rel=1e-5)
    assert float(shown.max()) <= 0


def test_slices_go_through_the_centroid_of_the_target_of_the_highest_prescription(make_case: MakeCase) -> None:
    case = make_case()
    expected = np.rint(np.argwhere(case.mask("PTV70")).mean(axis=0)).astype(int)
    assert isocentre_index(case) == tuple(expected)
    without = make_case(absent=("Bowel", "PTV70"))
    expected = np.rint(np.argwhere(without.mask("PTV56")).mean(axis=0)).astype(int)
    assert isocentre_index(without) == tuple(expected)


def test_slices_are_cut_to_where_there_is_dose_and_a_margin(comparison: Comparison) -> None:
    box = box_of_interest(comparison.case, comparison.plan_gy, comparison.predicted_gy)
    dosed = (comparison.plan_gy >= 14.0) & comparison.case.body
    assert dosed[box].sum() == dosed.sum()
    x = np.flatnonzero(dosed.any(axis=(0, 1)))
    assert (box[2].start, box[2].stop) == (max(0, x[0] - 5), min(48, x[-1] + 6))


def test_two_doses_of_nothing_have_no_slices(make_case: MakeCase) -> None:
    case = make_case()
    nothing = np.zeros(case.grid.shape_zyx, np.float32)
    case = dataclasses.replace(case, dose_gy=nothing, masks=np.zeros_like(case.masks))
    with pytest.raises(BadCase, match=r"no dose reaches 14\.0 Gy anywhere in the body"):
        box_of_interest(case, nothing, nothing)


def test_a_case_without_a_target_has_no_slices(make_case: MakeCase) -> None:
    with pytest.raises(BadCase, match="no target with a prescription is present"):
        isocentre_index(make_case(absent=("PTV70", "PTV56")))


def test_isodoses_are_those_of_the_prescriptions_of_present_targets(make_case: MakeCase) -> None:
    assert [dose for dose, _ in isodose_levels(make_case())] == pytest.approx([73.5, 66.5, 53.2, 35.0, 21.0])
    only = isodose_levels(make_case(absent=("PTV70",)))
    assert only[0] == (pytest.approx(58.8), "58.8 Gy (105 % PTV56)")


def test_isodoses_of_many_targets_are_told_once_each_the_highest_first() -> None:
    found = levels_of_targets({"A": 50.0, "B": 70.0, "C": 70.0, "D": 30.0, "E": 60.0, "F": 36.84})
    assert [dose for dose, _ in found] == pytest.approx([73.5, 66.5, 57.0, 47.5, 35.0, 28.5, 21.0], abs=0.01)
    assert found[1][1] == "66.5 Gy (95 % B, 95 % C)"
    assert found[4][1] == "35.0 Gy (95 % F, 50 % B)"


def test_slices_of_four_targets_and_more_are_drawn(make_case: MakeCase) -> None:
    case = make_case()
    assert case.dose_gy is not None
    targets = {"PTV70": 70.0, "PTV56": 56.0, "Prostate": 70.0, "Bladder": 50.0, "Rectum": 30.0, "Femur_L": 20.0}
    case = dataclasses.replace(case, prescription_gy=targets)
    with house_style():
        figure = plot_slices(compared(case, case.dose_gy), {})
    assert figure.axes


def test_a_prediction_of_another_shape_is_refused(make_case: MakeCase) -> None:
    with pytest.raises(BadCase, match="predict again"):
        without_gamma(make_case(), np.zeros((3, 3, 3), np.float32))


def test_dvhs_are_solid_for_the_plan_and_dashed_for_the_prediction() -> None:
    with house_style():
        figure = plot_dvh([curves("PTV70", is_target=True), curves("Rectum", is_target=False)], [RECTUM], 80.0)
    targets, organs = figure.axes
    assert [line.get_linestyle() for line in targets.lines] == ["-", "--"]
    assert targets.get_title() == "Targets"
    assert organs.get_xlabel() == "Dose (Gy)"
    assert targets.get_ylabel() == "Volume (%)"
    # The axis of targets begins a little before their shoulder at 55 Gy, that of organs at 0.
    assert targets.get_xlim()[0] == 45.0
    assert organs.get_xlim()[0] == 0.0


def test_a_goal_is_marked_where_its_dose_and_volume_are() -> None:
    with house_style():
        figure = plot_dvh([curves("Rectum", is_target=False)], [RECTUM], 80.0)
    mark = figure.axes[0].lines[-1]
    assert (mark.get_xdata()[0], mark.get_ydata()[0], mark.get_marker()) == (45.0, 45, "v")


def test_goals_of_several_structures_at_one_point_are_all_seen() -> None:
    names = ["Rectum", "Bladder", "Bowel"]
    goals = [RECTUM.model_copy(update={"structure": name}) for name in names]
    goals.append(RECTUM.model_copy(update={"structure": "Bowel", "limit": 20.0}))
    with house_style():
        figure = plot_dvh([curves(name, is_target=False) for name in names], goals, 80.0)
    marks = figure.axes[0].lines[-4:]
    assert [mark.get_markersize() for mark in marks] == [8, 14, 20, 8]
    # The smaller ones lie on the larger.
    assert marks[0].get_zorder() > marks[1].get_zorder() > marks[2].get_zorder() > figure.axes[0].lines[0].get_zorder()


def test_a_cohort_without_targets_has_one_panel() -> None:
    with house_style():
        assert len(plot_dvh([curves("Rectum", is_target=False)], [], 80.0).axes) == 1


def test_columns_of_a_history_go_to_the_panel_of_their_unit() -> None:
    panels = training_panels(["epoch", "steps", "lr", "train_loss", "val_mae_body_gy", "seconds"])
    assert [(panel.axis_label, [curve.column for curve in panel.curves]) for panel in panels] == [
        ("Loss", ["train_loss"]),
        ("Error (Gy)", ["val_mae_body_gy"]),
        ("Learning rate", ["lr"]),
    ]


def test_errors_of_overlap_have_a_panel_that_says_so() -> None:
    panels = training_panels(["epoch", "lr", "train_loss", "train_dice_error", "val_dice_error"])
    assert [panel.axis_label for panel in panels] == ["Loss", "1 − Dice", "Learning rate"]
    assert [curve.column for curve in panels[1].curves] == ["train_dice_error", "val_dice_error"]


def test_epochs_without_validation_are_left_out_of_the_line() -> None:
    with house_style():
        figure = plot_training(history(train_loss=[3, 2, 1], val_mae_body_gy=[5, np.nan, 4]), best_epoch=3)
    loss, error = figure.axes
    assert list(error.lines[0].get_xdata()) == [1, 3]
    assert loss.get_yscale() == "log"
    assert "epoch 3" in error.get_xlabel()


def test_a_loss_that_goes_below_zero_is_drawn_on_a_plain_axis() -> None:
    with house_style():
        assert plot_training(history(train_loss=[1, 0, -1]), None).axes[0].get_yscale() == "linear"


def test_a_loss_that_hardly_falls_is_drawn_on_a_plain_axis_whose_numbers_stand_apart() -> None:
    with house_style():
        figure = plot_training(history(train_loss=[0.01909, 0.01957, 0.01901], lr=[3e-3, 2e-3, 1e-4]), best_epoch=2)
        figure.canvas.draw()
    loss, rate = figure.axes
    assert loss.get_yscale() == "linear"
    boxes = [label.get_window_extent() for label in loss.get_yticklabels() if label.get_text()]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[i + 1 :])
    assert all(float(tick).is_integer() for tick in rate.get_xticks())


def test_a_history_without_losses_is_refused() -> None:
    with house_style(), pytest.raises(BadInput, match="needs `epoch` and a loss"):
        plot_training(history(seconds=[1, 2, 3]), None)


def test_differences_show_one_point_per_case_that_has_the_structure() -> None:
    with house_style():
        figure = plot_differences(["Rectum mean"], [np.array([1.0, np.nan, 3.0])], "Prediction − plan (Gy)")
    points, mean = figure.axes[0].lines[:2]
    assert sorted(points.get_xdata()) == [1.0, 3.0]
    assert mean.get_xdata()[0] == 2.0


def test_many_rows_of_differences_stand_in_two_columns_on_one_scale() -> None:
    labels = [f"Rectum D{k}%" for k in range(25)]
    values = [np.array([float(k), k + 1.0]) for k in range(25)]
    with house_style():
        figure = plot_differences(labels, values, "Prediction − plan (Gy)")
    first, second = figure.axes
    shown = [[text.get_text() for text in axis.get_yticklabels()] for axis in (first, second)]
    assert shown == [labels[:13], labels[13:]]
    assert first.get_xlim() == second.get_xlim()
    assert second.lines[1].get_xdata()[0] == 13.5
    assert figure.get_figheight() < 4.5


def test_equal_figures_are_equal_bytes_without_clock_or_software(tmp_path: Path) -> None:
    def draw(folder: Path) -> dict[str, bytes]:
        with house_style():
            figure = new_figure(2.0)
            figure.subplots().plot([1, 2], label="dose")
            return {kind: path.read_bytes() for kind, path in save_figure(figure, folder, "f", 50).items()}

    first, second = draw(tmp_path / "a"), draw(tmp_path / "b")
    assert set(first) == {"png", "svg", "pdf"}
    assert first == second
    for content in first.values():
        assert b"Matplotlib" not in content.replace(b"Matplotlib-", b"")
        assert b"CreationDate" not in content
        assert b"dc:date" not in content


def test_only_pictures_become_data_uris(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_bytes(b"<svg/>")
    assert data_uri(tmp_path / "a.svg") == "data:image/svg+xml;base64,PHN2Zy8+"
    with pytest.raises(BadInput, match=r"only \.png, \.svg"):
        data_uri(tmp_path / "a.pdf")


def test_a_persons_own_matplotlibrc_changes_nothing() -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 4, "lines.linewidth": 9}):
        with house_style():
            assert matplotlib.rcParams["font.size"] == FONT_PT
        assert matplotlib.rcParams["font.size"] == 4

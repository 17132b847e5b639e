"""A plan as a picture: isodoses on three slices, apertures of an arc."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import atomic_path
from doseledger.core.grid import resample_linear
from doseledger.core.plan import Arc, Plan
from doseledger.core.project.protocol import Protocol
from doseledger.dicom.contours import fill
from doseledger.dicom.plan.read import read_plan
from doseledger.dicom.read import gather_objects
from doseledger.dicom.source import lenient, read_source
from doseledger.ingest.patient.read import Patient, read_patient
from doseledger.planning.machine.linac import load_machine
from doseledger.report.figures.slices import WINDOW_HU, coloured
from doseledger.report.figures.style import NO_METADATA, house_style, new_figure
from doseledger.report.figures.views import levels_of_targets

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Shown around the isocentre, in mm: across, from front to back, along.
SHOWN_MM = {"x": (-170.0, 170.0), "y": (-130.0, 120.0), "z": (-80.0, 140.0)}
MARGIN_MM = 15.0
TARGET_COLOUR, ORGAN_COLOUR = "#FFFFFF", "#8FD3FF"
HEIGHT_IN, DPI = 6.4, 130


@dataclass(frozen=True)
class _Scene:
    """What is drawn: arrays on the image's grid, which of the structures are targets, and the edges of the leaves."""

    patient: Patient
    plan: Plan
    dose_gy: NDArray[np.float32]
    masks: dict[str, NDArray[np.bool_]]
    targets: tuple[str, ...]
    boundary_mm: NDArray[np.float64]


def plot_plan(source: Path, protocol: Protocol, out: Path) -> None:
    """Write a PNG of a case's isodoses on axial, coronal and sagittal slices, and of apertures of its first arc.

    Raises
    ------
    BadCase
        If the case can't be read, or the protocol asks for no dose.
    BadInput
        If the plan is not of the generic machine, the only one whose leaves are known here.
    """
    case_id = source.stem
    patient = read_patient(source, protocol, case_id)
    if patient.dose is None:
        raise BadCase(case_id, f"protocol {protocol.name} asks for no dose, so there is nothing to draw")
    with lenient():
        files, _ = read_source(source)
        rtplan = gather_objects(files, ["rtplan"], protocol.modality, case_id).rtplan
        if rtplan is None:
            raise BadCase(case_id, "no RTPLAN to draw apertures of; export the plan")
        plan = read_plan(rtplan, case_id)
    machine = load_machine()
    if plan.machine != machine.name:
        raise BadInput(
            f"{case_id}: its plan is for {plan.machine}, and only the leaves of {machine.name} are known here"
        )
    grid = patient.image.grid
    dose_gy = resample_linear(patient.dose.dose_gy, patient.dose.grid, grid, outside=0.0)
    masks = {name: fill(stack, grid) for name, stack in patient.stacks.items()}
    with house_style():
        scene = _Scene(patient, plan, dose_gy, masks, protocol.target_names, machine.leaves.boundary_mm)
        figure = _draw(scene, case_id)
        with atomic_path(out) as part:
            figure.savefig(part, format="png", dpi=DPI, metadata=NO_METADATA["png"])


def _draw(scene: _Scene, case_id: str) -> Figure:
    figure = new_figure(HEIGHT_IN)
    widths = [_span_mm("x"), _span_mm("y")]
    panels = figure.add_gridspec(
        2, 2, width_ratios=widths, wspace=0.12, hspace=0.12, left=0.01, right=0.99, top=0.93, bottom=0.09
    )
    for plane, panel in (("axial", panels[0, 0]), ("sagittal", panels[0, 1]), ("coronal", panels[1, 0])):
        _draw_slice(figure.add_subplot(panel), scene, plane)
    arc = scene.plan.arcs[0]
    apertures = panels[1, 1].subgridspec(2, 2, wspace=0.3, hspace=0.3)
    shown = np.linspace(0, arc.n_control_points - 1, 6)[1:-1].astype(int)
    for k, point in enumerate(shown):
        _draw_aperture(figure.add_subplot(apertures[k // 2, k % 2]), arc, int(point), scene.boundary_mm)
    figure.suptitle(f"{case_id}: {scene.plan.total_mu:.0f} MU in {len(scene.plan.arcs)} arcs", fontsize=11, y=0.985)
    _draw_key(figure, scene)
    return figure


def _levels(scene: _Scene) -> list[tuple[float, str]]:
    """Isodoses in Gy with their colours, the lowest first."""
    levels = levels_of_targets(scene.plan.prescription_gy or {"the highest dose": float(scene.dose_gy.max())})
    return [(dose_gy, colour) for dose_gy, _, colour in reversed(coloured(levels))]


def _span_mm(axis: str) -> float:
    return SHOWN_MM[axis][1] - SHOWN_MM[axis][0]


def _draw_slice(axis: Axes, scene: _Scene, plane: str) -> None:
    """One slice through the isocentre; the patient's left is on the right, anterior is up or on the left."""
    grid = scene.patient.image.grid
    isocentre = scene.plan.arcs[0].isocentre_xyz_mm
    z, y, x = (int(k) for k in np.round(grid.mm_to_index(np.array(isocentre[::-1]))))
    axes = dict(zip("zyx", grid.axes_mm(), strict=True))
    planes: dict[str, tuple[str, str, Any]] = {
        "axial": ("x", "y", np.s_[z, :, :]),
        "coronal": ("x", "z", np.s_[:, y, :]),
        "sagittal": ("y", "z", np.s_[:, :, x]),
    }
    across, up, cut = planes[plane]
    middle = dict(zip("xyz", isocentre, strict=True))
    columns, lines = axes[across] - middle[across], axes[up] - middle[up]
    low, high = WINDOW_HU
    axis.pcolormesh(columns, lines, scene.patient.image.values[cut], cmap="gray", vmin=low, vmax=high, rasterized=True)
    for name, mask in scene.masks.items():
        if mask[cut].any():
            is_target = name in scene.targets
            colour, style = (TARGET_COLOUR, "dashed") if is_target else (ORGAN_COLOUR, "dotted")
            axis.contour(columns, lines, mask[cut], levels=[0.5], colors=[colour], linewidths=0.9, linestyles=[style])
    drawn = [(level, colour) for level, colour in _levels(scene) if level < scene.dose_gy[cut].max()]
    axis.contour(
        columns, lines, scene.dose_gy[cut], levels=[level for level, _ in drawn],
        colors=[colour for _, colour in drawn], linewidths=1.1,
    )  # fmt: skip
    axis.set(xlim=SHOWN_MM[across], ylim=SHOWN_MM[up], xticks=[], yticks=[], aspect=1.0)
    if up == "y":
        axis.invert_yaxis()
    axis.set_title(f"{plane}", fontsize=10)


def _draw_aperture(axis: Axes, arc: Arc, point: int, boundary_mm: NDArray[np.float64]) -> None:
    """Leaves and jaws at one control point, as the beam sees them."""
    from matplotlib.patches import Rectangle

    x1, x2, y1, y2 = (*arc.jaw_x_mm, *arc.jaw_y_mm) if arc.moving_jaws_mm is None else arc.moving_jaws_mm[point]
    left, right, low, high = (x1 - MARGIN_MM, x2 + MARGIN_MM, y1 - MARGIN_MM, y2 + MARGIN_MM)
    for (bank1, bank2), (start, stop) in zip(arc.leaf_mm[point].T, pairwise(boundary_mm), strict=True):
        for a, b in ((left, bank1), (bank2, right)):
            axis.add_patch(Rectangle((a, start), max(0.0, b - a), stop - start, fc="#9DB4C8", ec="#FFFFFF", lw=0.3))
    axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec="#D55E00", lw=1.4))
    axis.plot([0], [0], "+", color="#000000", ms=6)
    axis.set(xlim=(left, right), ylim=(low, high), aspect=1.0)
    axis.grid(visible=False)
    axis.tick_params(labelsize=7)
    axis.set_title(f"gantry {arc.gantry_deg[point]:.0f}°, mm", fontsize=8, pad=3)


def _draw_key(figure: Figure, scene: _Scene) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=colour, label=f"{level:.1f} Gy") for level, colour in _levels(scene)[::-1]]
    lines.append(Line2D([], [], color="#555555", ls="dashed", lw=1, label="targets"))
    lines.append(Line2D([], [], color=ORGAN_COLOUR, ls="dotted", lw=1, label="organs"))
    lines.append(Line2D([], [], color="#D55E00", label="jaws"))
    figure.legend(handles=lines, loc="lower center", ncols=len(lines), fontsize=8, handlelength=1.4, columnspacing=1.0)

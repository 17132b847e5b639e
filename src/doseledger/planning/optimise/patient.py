"""Inputs of planning: a patient as arrays, a planning style, optimiser settings."""

from __future__ import annotations

from dataclasses import dataclass, field

from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.core.plan import Plan
from doseledger.core.types import GyArray, HuArray, Mask, Triple


@dataclass(frozen=True)
class Patient:
    """One patient to be planned, head first and supine.

    Parameters
    ----------
    case_id
        Name in messages, and label of the plan.
    ct_hu
        CT numbers, int16 (z, y, x).
    grid
        Grid of the CT, the masks and the body.
    masks
        bool (z, y, x) by structure, targets and organs.
    body
        The outline, bool (z, y, x).
    prescription_gy
        Total dose by target.
    n_fractions
        Planned fractions.
    isocentre_xyz_mm
        LPS; the centre of the hottest target if None.
    dose_grid
        Where the dose is reported; the body's box at the settings' spacing if None.
    wanted_dose_gy
        For objectives of kind `mimic` and `mimic_max`: total dose on `grid`, (z, y, x).
    ct_grid
        Grid of the CT where it is another than that of the masks: a whole scan, with its couch; None for `grid`.
    """

    case_id: str
    ct_hu: HuArray
    grid: Grid
    masks: dict[str, Mask]
    body: Mask
    prescription_gy: dict[str, float]
    n_fractions: int
    isocentre_xyz_mm: tuple[float, float, float] | None = None
    dose_grid: Grid | None = None
    wanted_dose_gy: GyArray | None = None
    ct_grid: Grid | None = None

    def __post_init__(self) -> None:
        shapes = {"body": self.body.shape, **{name: mask.shape for name, mask in self.masks.items()}}
        if self.wanted_dose_gy is not None:
            shapes["wanted_dose_gy"] = self.wanted_dose_gy.shape
        wanted = {"ct_hu": (self.ct_hu.shape, self.image_grid)}
        wanted |= {name: (shape, self.grid) for name, shape in shapes.items()}
        for name, (shape, grid) in wanted.items():
            if shape != grid.shape_zyx:
                raise BadCase(self.case_id, f"{name} has {shape} voxels, its grid has {grid.shape_zyx}")
        for name in self.prescription_gy:
            if name not in self.masks or not self.masks[name].any():
                raise BadCase(self.case_id, f"target {name} has a prescription but no voxels; contour it, or drop it")
        if not self.prescription_gy or not self.body.any():
            raise BadCase(self.case_id, "a plan needs a target with a prescription, and a body; found none")

    @property
    def image_grid(self) -> Grid:
        """Grid of the CT."""
        return self.ct_grid or self.grid

    @property
    def hottest_target(self) -> str:
        """Name of the target of the highest dose."""
        return max(self.prescription_gy, key=lambda name: self.prescription_gy[name])


@dataclass(frozen=True)
class PlanStyle:
    """How one planner plans: what makes dose more than a function of the contours.

    Parameters
    ----------
    collimator_deg
        Collimator angle of each arc.
    jaw_margin_mm
        From the targets' projection to the jaws.
    target_weight, ring_weight
        Multipliers of the targets' and the normal tissue's objectives.
    organ_weights
        Multipliers by organ; 1 where absent.
    falloff_mm
        How fast the dose is asked to fall outside the targets.
    """

    collimator_deg: tuple[float, ...] = (15.0, 345.0)
    jaw_margin_mm: float = 8.0
    target_weight: float = 1.0
    ring_weight: float = 1.0
    organ_weights: dict[str, float] = field(default_factory=dict)
    falloff_mm: float = 18.0

    def organ_weight(self, organ: str) -> float:
        """Return the multiplier of an organ's objectives."""
        return self.organ_weights.get(organ, 1.0)


@dataclass(frozen=True)
class OptimiserSettings:
    """How much work goes into a plan.

    Parameters
    ----------
    segments_per_arc
        Segments between control points; each arc turns by 358°.
    iterations
        Steps of the optimiser.
    dose_spacing_mm
        Spacing (z, y, x) of the reported dose, where the patient brings no dose grid.
    sub_angles
        Beams for each segment in the reported dose.
    n_points
        Points that stand for all structures, to within half as many more: each structure has its share of them.
    bound_iterations
        Steps for the free-fluence bound; 0 for none.
    mu_weight
        Penalty for each monitor unit of a fraction per Gy of the highest prescription in it; 0 for none.
    edge_weight
        Penalty for each of these and each mm of the mean step between neighbouring leaves; 0 for none.
    outline_margin_mm
        How far leaves may open beyond the targets' outline in beam's-eye view; 0 for as far as the jaws.
    """

    segments_per_arc: int
    iterations: int
    dose_spacing_mm: Triple
    sub_angles: int
    n_points: int = 9000
    bound_iterations: int = 0
    mu_weight: float = 0.0
    edge_weight: float = 0.0
    outline_margin_mm: float = 0.0


@dataclass(frozen=True)
class PlannedPatient:
    """A deliverable plan and its dose.

    Parameters
    ----------
    plan
        Discrete control points, within every limit of the machine.
    dose_gy
        Total dose of those control points, float32 (z, y, x), 0 outside the body.
    objective
        Penalty of the plan when optimised, before the final scaling to the prescription.
    scale
        Final factor on all monitor units, which gives the hottest target its D95%.
    free_fluence_objective
        Penalty that fluence free of any machine reaches with the same beams; None unless asked for.
    """

    plan: Plan
    dose_gy: GyArray
    dose_grid: Grid
    objective: float
    iterations: int
    scale: float
    free_fluence_objective: float | None = None

"""A plan as data: beams, control points with leaves and jaws, meterset.

Angles are IEC 61217 degrees. Leaf and jaw positions are mm at the isocentre plane in the beam limiting device's frame;
`leaf_mm[:, 0]` is bank X1 (negative side), `leaf_mm[:, 1]` bank X2, so an open pair has leaf_mm[:, 0] < leaf_mm[:, 1].
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.types import Floats

# No beam delivers more in a fraction: at 2,400 MU/min, the fastest there is, it would take eight minutes.
MOST_BEAM_MU = 20_000.0


@dataclass(frozen=True)
class Arc:
    """One beam: a static field has two control points at one angle, an arc has many.

    Parameters
    ----------
    name
        Beam name.
    gantry_deg
        Gantry angle of each control point, (control point,), each in [0, 360).
    clockwise
        Sense of the gantry's rotation, seen by someone who faces the gantry (IEC 61217); None if it stands still.
    collimator_deg, couch_deg
        Angles held through the arc.
    leaf_mm
        Leaf tips, (control point, bank, leaf pair).
    jaw_x_mm, jaw_y_mm
        Jaws held through the arc, (X1, X2) and (Y1, Y2); their widest opening where they move.
    meterset_mu
        Cumulative monitor units at each control point, (control point,), per fraction, from 0.
    isocentre_xyz_mm
        LPS.
    moving_jaws_mm
        Jaws that follow the aperture, (control point, 4) as X1, X2, Y1, Y2; None where they are held.
    """

    name: str
    gantry_deg: Floats
    clockwise: bool | None
    collimator_deg: float
    couch_deg: float
    leaf_mm: Floats
    jaw_x_mm: tuple[float, float]
    jaw_y_mm: tuple[float, float]
    meterset_mu: Floats
    isocentre_xyz_mm: tuple[float, float, float]
    moving_jaws_mm: Floats | None = None

    def __post_init__(self) -> None:
        n = len(self.gantry_deg)
        if n < 2 or self.leaf_mm.ndim != 3 or self.leaf_mm.shape[:2] != (n, 2) or len(self.meterset_mu) != n:
            raise BadInput(
                f"arc {self.name}: {n} gantry angles, leaves of shape {self.leaf_mm.shape} and "
                f"{len(self.meterset_mu)} metersets; wanted n ≥ 2, (n, 2, pairs) and n"
            )

    @property
    def n_control_points(self) -> int:
        """Number of control points."""
        return len(self.gantry_deg)

    @property
    def segment_mu(self) -> Floats:
        """Monitor units of each segment between control points, (control point − 1,)."""
        return np.diff(self.meterset_mu)


@dataclass(frozen=True)
class Plan:
    """A plan: its arcs, fractions and prescription.

    Parameters
    ----------
    label
        Plan label, at most 16 characters (DICOM SH).
    machine
        Name of the treatment machine.
    energy_mv
        Nominal photon energy in MV.
    arcs
        Beams in order of delivery.
    n_fractions
        Planned fractions.
    prescription_gy
        Total dose of each target in Gy.
    """

    label: str
    machine: str
    energy_mv: float
    arcs: tuple[Arc, ...]
    n_fractions: int
    prescription_gy: dict[str, float] = field(default_factory=dict)

    @property
    def total_mu(self) -> float:
        """Monitor units of one fraction."""
        return float(sum(arc.meterset_mu[-1] for arc in self.arcs))

"""The linac as data: leaves, jaws, speed limits, beam, and CT to density.

Angles are IEC 61217, lengths are mm at the isocentre plane in the beam limiting device's frame.
"""

from __future__ import annotations

from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from doseledger.core.files import read_yaml
from doseledger.core.schema import Block, load_block
from doseledger.core.types import Array, Floats, Singles

Positive = Annotated[float, Field(gt=0)]
# The machines that come with the package, in `machines/`.
PACKAGED = ("generic", "tissue")
# The loops are unrolled over this many radial Gaussians.
N_GAUSSIANS = 4


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] < value[1]:
        raise ValueError(f"must rise, found {value[0]:g} to {value[1]:g}")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_rising)]


class Leaves(Block):
    """The multileaf collimator: pairs move along X and are stacked along Y."""

    runs: list[tuple[Annotated[int, Field(gt=0)], Positive]]
    travel_mm: Range
    max_span_mm: Positive
    min_gap_mm: Annotated[float, Field(ge=0)]
    max_speed_mm_s: Positive
    interdigitation: bool

    @cached_property
    def boundary_mm(self) -> Floats:
        """Edges of the leaf pairs along Y in mm, (pair + 1,), centred on the axis."""
        widths = np.concatenate([np.full(count, width) for count, width in self.runs])
        edges = np.concatenate([[0.0], np.cumsum(widths)])
        return np.asarray(edges - edges[-1] / 2.0, dtype=np.float64)

    @property
    def n_pairs(self) -> int:
        """Number of leaf pairs."""
        return sum(count for count, _ in self.runs)


class Jaws(Block):
    """The jaws: how far they go, and their smallest opening."""

    x_mm: Range
    y_mm: Range
    min_opening_mm: Positive


class Gantry(Block):
    """Limits of the gantry's speed while it irradiates."""

    max_speed_deg_s: Positive
    min_speed_deg_s: Positive

    @model_validator(mode="after")
    def _is_sound(self) -> Gantry:
        _rising((self.min_speed_deg_s, self.max_speed_deg_s))
        return self


class DoseRate(Block):
    """Limits of the dose rate."""

    max_mu_min: Positive
    min_mu_min: Positive

    @model_validator(mode="after")
    def _is_sound(self) -> DoseRate:
        _rising((self.min_mu_min, self.max_mu_min))
        return self


class Electrons(Block):
    """Electrons of head and air, which add amplitude_g · e^(−attenuation · depth) to each Gaussian's depth dose."""

    attenuation_per_mm: Annotated[float, Field(ge=0.05)]
    amplitude: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=N_GAUSSIANS, max_length=N_GAUSSIANS)]


class Beam(Block):
    """The photon beam: leakage, calibration, and its pencil beam in factored form.

    Parameters
    ----------
    follows_density
        Whether the Gaussians' widths follow the density along the ray (`planning.dose.stretch`), or are those of water.
    electrons
        None: the dose is 0 at the surface.
    """

    energy_mv: Positive
    leaf_transmission: Annotated[float, Field(ge=0, lt=0.2)]
    leaf_gap_mm: Annotated[float, Field(ge=0)]
    reference_gy_per_mu: Positive
    reference_field_mm: Positive
    reference_depth_mm: Positive
    attenuation_per_mm: Positive
    buildup_per_mm: list[Positive]
    sigma_mm: list[Positive]
    amplitude: list[list[float]]
    fluence_distance_mm: list[Annotated[float, Field(ge=0)]]
    fluence_relative: list[Positive]
    follows_density: bool = False
    electrons: Electrons | None = None

    @model_validator(mode="after")
    def _is_sound(self) -> Beam:
        shape = (len(self.buildup_per_mm), N_GAUSSIANS)
        if len(self.sigma_mm) != N_GAUSSIANS or np.shape(self.amplitude) != shape:
            raise ValueError(f"amplitude must be {shape} for as many build-ups and {N_GAUSSIANS} Gaussians")
        if any(np.isclose(beta, self.attenuation_per_mm) for beta in self.buildup_per_mm):
            raise ValueError("a build-up equal to the attenuation has no finite depth dose")
        rising = np.all(np.diff(self.fluence_distance_mm) > 0)
        if len(self.fluence_distance_mm) != len(self.fluence_relative) or not rising:
            raise ValueError("fluence_distance_mm must rise, with as many values in fluence_relative")
        return self

    def primary_fluence(self, distance_mm: Array) -> Floats:
        """Return the primary fluence relative to the axis at distances from it in the isocentre plane."""
        return np.interp(distance_mm, self.fluence_distance_mm, self.fluence_relative).astype(np.float64)


class Density(Block):
    """Electron density relative to water by CT number: straight lines between knots."""

    hu: list[float]
    relative: list[Annotated[float, Field(ge=0)]]

    @model_validator(mode="after")
    def _is_sound(self) -> Density:
        if len(self.hu) != len(self.relative) or len(self.hu) < 2 or np.any(np.diff(self.hu) <= 0):
            raise ValueError("hu must rise, with as many values in relative")
        return self

    def of(self, ct_hu: Array) -> Singles:
        """Return the electron density relative to water of CT numbers; the end values hold beyond the knots."""
        return np.interp(ct_hu, self.hu, self.relative).astype(np.float32)


class Machine(Block):
    """A treatment machine."""

    name: str
    source_axis_mm: Positive
    leaves: Leaves
    jaws: Jaws
    gantry: Gantry
    dose_rate: DoseRate
    beam: Beam
    density: Density

    def fastest_segment_s(self, turn_deg: Array, mu: Array) -> Floats:
        """Return the least time of segments in s: the gantry's or the meterset's, whichever takes longer.

        Parameters
        ----------
        turn_deg
            Gantry rotation of each segment.
        mu
            Monitor units of each segment.
        """
        turning = np.abs(turn_deg) / self.gantry.max_speed_deg_s
        return np.maximum(turning, 60.0 * np.asarray(mu, dtype=np.float64) / self.dose_rate.max_mu_min)

    def leaf_reach_mm(self, turn_deg: float) -> float:
        """Return how far a leaf goes in mm while the gantry turns at its full speed."""
        return self.leaves.max_speed_mm_s * turn_deg / self.gantry.max_speed_deg_s


def load_machine(where: Path | str | None = None) -> Machine:
    """Return a machine: of a YAML file, or one that comes with the package, by its name; the generic one for None.

    The machine `tissue` is the generic one for patients: its beam follows the density and holds the head's electrons.

    Raises
    ------
    BadInput
        Naming the key, what was found and what was wanted.
    """
    name = str(where or "generic")
    if name not in PACKAGED or Path(name).is_file():
        return load_block(Machine, read_yaml(Path(name)), name)
    value = _packaged(name)
    if "like" in value:
        other = _packaged(value.pop("like"))
        value = {**other, **value, "beam": {**other["beam"], **value["beam"]}}
    return load_block(Machine, value, f"{name} machine")


def machine_named(name: str) -> Machine:
    """Return the machine of the package that plans name; the generic one if none is."""
    return next((one for one in map(load_machine, PACKAGED) if one.name == name), load_machine())


def _packaged(name: str) -> dict[str, Any]:
    packaged = resources.files("doseledger.planning.machine") / "machines" / f"{name}.yaml"
    with resources.as_file(packaged) as path:
        return dict(read_yaml(path))

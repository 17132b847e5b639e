"""Fixtures of the planning tests: the generic machine, water, and a small pelvis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from doseledger.core.grid import Grid
from doseledger.core.plan import Arc, Plan
from doseledger.planning.machine.linac import Machine, load_machine
from doseledger.planning.optimise.patient import Patient


@pytest.fixture(scope="session")
def machine() -> Machine:
    return load_machine()


@pytest.fixture(scope="session")
def make_field(machine: Machine) -> Callable[..., Arc]:
    """Factory of static fields: make_field(100.0) is 100 × 100 mm by the jaws, 100 MU, gantry 0, isocentre at 0."""

    def make(side_mm: float = 100.0, mu: float = 100.0, gantry_deg: float = 0.0, **change: object) -> Arc:
        leaf = np.empty((2, 2, machine.leaves.n_pairs))
        leaf[:, 0], leaf[:, 1] = -200.0, 200.0
        values: dict[str, object] = {
            "name": "FIELD",
            "gantry_deg": np.array([gantry_deg, gantry_deg]),
            "clockwise": None,
            "collimator_deg": 0.0,
            "couch_deg": 0.0,
            "leaf_mm": leaf,
            "jaw_x_mm": (-side_mm / 2, side_mm / 2),
            "jaw_y_mm": (-side_mm / 2, side_mm / 2),
            "meterset_mu": np.array([0.0, mu]),
            "isocentre_xyz_mm": (0.0, 0.0, 0.0),
        }
        return Arc(**{**values, **change})  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def make_plan(machine: Machine) -> Callable[..., Plan]:
    def make(*arcs: Arc, n_fractions: int = 1) -> Plan:
        return Plan("test", machine.name, machine.beam.energy_mv, arcs, n_fractions)

    return make


@pytest.fixture(scope="session")
def pelvis() -> Patient:
    """An elliptic body with a boost target, a larger target, and organs about it, on 4 mm voxels."""
    grid = Grid((40, 56, 84), (4.0, 4.0, 4.0), (-78.0, -110.0, -166.0))
    z, y, x = np.meshgrid(*grid.axes_mm(), indexing="ij")

    def ellipsoid(x0: float, y0: float, z0: float, *radius: float) -> np.ndarray:
        return ((x - x0) / radius[0]) ** 2 + ((y - y0) / radius[1]) ** 2 + ((z - z0) / radius[2]) ** 2 <= 1.0

    body = (x / 160.0) ** 2 + (y / 105.0) ** 2 <= 1.0
    boost = ellipsoid(0, 5, -5, 28, 25, 27)
    vesicles = ellipsoid(0, 17, 22, 34, 15, 18)
    femur = ellipsoid(85, 5, 0, 24, 24, 60)
    rectum = ((x / 15) ** 2 + ((y - 45) / 15) ** 2 <= 1) & (np.abs(z) < 50)
    ct = np.where(body, 20, -1000).astype(np.int16)
    ct[femur | femur[:, :, ::-1]] = 400
    ct[ellipsoid(0, 45, 10, 6, 6, 20)] = -800
    masks = {
        "PTV70": boost,
        "PTV56": boost | vesicles,
        "Rectum": rectum,
        "Bladder": ellipsoid(0, -32, 34, 36, 28, 28),
        "Femur_L": femur,
        "Femur_R": femur[:, :, ::-1],
    }
    return Patient("pelvis", ct, grid, masks, body, {"PTV70": 70.0, "PTV56": 56.0}, 28)

"""Factored pencil beam: depth dose times a sum of radial Gaussians.

D(x, y, d) = Σ_g a_g(d) · (fluence ∗ Gaussian_g)(x, y) · (SAD / t)², with the depth's share
a_g(d) = Σ_c A_cg β_c / (β_c − μ) · (e^(−μ d) − e^(−β_c d)) and t the distance from the source.
A Gaussian is separable and a leaf pair is a strip, so that the convolution of strips and cells is two small matrices of
error functions and exact whatever the grid; no influence matrix is ever made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from doseledger.core.types import Floats, Singles
from doseledger.planning.dose.loops import DEPTH_STEP_MM, interleave, part
from doseledger.planning.machine.linac import Beam, Machine

DEPTH_MAX_MM = 800.0
# Cells of the primary fluence where a field is given by its side alone.
CELL_MM = 2.5


def component_depth_dose(beam: Beam, depth_mm: Floats) -> Floats:
    """Return the depth dose of each component, (depth, component).

    Notes
    -----
    T. Bortfeld, W. Schlegel, B. Rhein, Med Phys 20:311, 1993, eq. 10.
    """
    beta = np.asarray(beam.buildup_per_mm)
    mu = beam.attenuation_per_mm
    depth = np.asarray(depth_mm, dtype=np.float64)[:, None]
    return np.asarray(beta / (beta - mu) * (np.exp(-mu * depth) - np.exp(-beta * depth)))


def gaussian_depth_dose(beam: Beam, depth_mm: Floats) -> Floats:
    """Return the depth dose of each Gaussian, electrons of head and air included, (depth, gaussian)."""
    dose = component_depth_dose(beam, depth_mm) @ np.asarray(beam.amplitude)
    if beam.electrons is not None:
        left = np.exp(-beam.electrons.attenuation_per_mm * np.asarray(depth_mm, dtype=np.float64))
        dose = dose + left[:, None] * np.asarray(beam.electrons.amplitude)
    return np.asarray(dose)


def square_field_factor(beam: Beam, side_mm: float) -> Floats:
    """Return what each Gaussian gathers at the centre of a square field, (gaussian,)."""
    edge = np.linspace(-0.5 * side_mm, 0.5 * side_mm, max(2, round(side_mm / CELL_MM)) + 1)
    middle = 0.5 * (edge[1:] + edge[:-1])
    primary = beam.primary_fluence(np.hypot(middle[:, None], middle[None, :]))
    shares = [_strip_matrix(np.zeros(1), edge, sigma)[0].astype(np.float64) for sigma in beam.sigma_mm]
    return np.array([share @ primary @ share for share in shares])


def calibration_gy_per_mu(beam: Beam) -> float:
    """Return the factor that makes the reference field give the reference dose per MU."""
    depth = gaussian_depth_dose(beam, np.array([beam.reference_depth_mm]))[0]
    field = square_field_factor(beam, beam.reference_field_mm)
    return float(beam.reference_gy_per_mu / (depth @ field))


def depth_table(beam: Beam) -> Singles:
    """Return a_g of every `DEPTH_STEP_MM` of radiological depth in Gy/MU, float32 (depth, gaussian)."""
    depth = np.arange(0.0, DEPTH_MAX_MM + DEPTH_STEP_MM, DEPTH_STEP_MM)
    weight = gaussian_depth_dose(beam, depth)
    return np.ascontiguousarray(calibration_gy_per_mu(beam) * weight, dtype=np.float32)


def _strip_matrix(at_mm: NDArray[np.floating], edge_mm: NDArray[np.floating], sigma_mm: float) -> Singles:
    """Return the Gaussian's share that strips between edges bring to positions, (position, strip)."""
    reach = erf((edge_mm[None, :] - at_mm[:, None]) / (np.sqrt(2.0) * sigma_mm))
    return np.ascontiguousarray(0.5 * np.diff(reach, axis=1), dtype=np.float32)


@dataclass(frozen=True)
class Spread:
    """From strips of fluence to the four blurred maps, and back, for one setting of jaws.

    Parameters
    ----------
    pairs
        Leaf pairs that the jaws leave open, as a slice of all pairs.
    cell_edge_mm
        Edges of the cells along the leaves' travel, from jaw to jaw.
    start_mm, spacing_mm
        X and Y of the maps' first node, and the distance of nodes.
    shape
        Nodes along Y and X.
    primary
        Primary fluence of each cell, float32 (pair, cell).
    along_x, along_y
        For each Gaussian the matrices (node along X, cell) and (node along Y, pair).
    """

    pairs: slice
    cell_edge_mm: Floats
    start_mm: tuple[float, float]
    spacing_mm: float
    shape: tuple[int, int]
    primary: Singles
    along_x: tuple[Singles, ...]
    along_y: tuple[Singles, ...]

    def maps(self, fluence: Singles) -> Singles:
        """Return the blurred maps, float32 (segment, y, x, gaussian), of what passes, (segment, pair, cell)."""
        n = fluence.shape[0]
        fluence = fluence * self.primary
        single = np.empty((len(self.along_x), n, *self.shape), dtype=np.float32)
        for x, y, out in zip(self.along_x, self.along_y, single, strict=True):
            rows = (fluence.reshape(-1, fluence.shape[2]) @ x.T).reshape(n, fluence.shape[1], -1)
            np.matmul(y, rows, out=out)
        together = np.empty((*single.shape[1:], len(single)), dtype=np.float32)
        interleave(single, together)
        return together

    def adjoint(self, maps: Singles) -> Singles:
        """Return the transpose of `maps` applied to maps: float32 (segment, pair, cell)."""
        n = maps.shape[0]
        out = np.zeros((n, self.along_y[0].shape[1], self.along_x[0].shape[1]), dtype=np.float32)
        single = np.empty((len(self.along_x), *maps.shape[:3]), dtype=np.float32)
        part(maps, single)
        for x, y, blurred in zip(self.along_x, self.along_y, single, strict=True):
            rows = np.matmul(y.T, blurred)
            out += (rows.reshape(-1, rows.shape[2]) @ x).reshape(n, out.shape[1], -1)
        out *= self.primary
        return out


def spread_for(
    machine: Machine,
    jaw_x_mm: tuple[float, float],
    jaw_y_mm: tuple[float, float],
    spacing_mm: float,
    margin_mm: float,
    sigma_mm: Sequence[float] | None = None,
) -> Spread:
    """Return the spread of a jaw setting.

    Parameters
    ----------
    jaw_x_mm, jaw_y_mm
        The jaws. What lies behind them is dark, to the exact edge.
    spacing_mm
        Nodes of the maps, and cells along the leaves, are at most this far apart.
    margin_mm
        How far beyond the jaws the maps reach; further out no dose is computed.
    sigma_mm
        Widths of the Gaussians; None for the beam's own.
    """
    boundary = machine.leaves.boundary_mm
    inside = np.flatnonzero((boundary[1:] > jaw_y_mm[0] + 1e-6) & (boundary[:-1] < jaw_y_mm[1] - 1e-6))
    pairs = slice(int(inside[0]), int(inside[-1]) + 1)
    pair_edge = np.clip(boundary[pairs.start : pairs.stop + 1], jaw_y_mm[0], jaw_y_mm[1])
    n_cells = max(1, int(np.ceil((jaw_x_mm[1] - jaw_x_mm[0]) / spacing_mm - 1e-6)))
    cell_edge = np.linspace(jaw_x_mm[0], jaw_x_mm[1], n_cells + 1)
    low = (jaw_x_mm[0] - margin_mm, jaw_y_mm[0] - margin_mm)
    high = (jaw_x_mm[1] + margin_mm, jaw_y_mm[1] + margin_mm)
    n_x, n_y = (int(np.ceil((b - a) / spacing_mm)) + 1 for a, b in zip(low, high, strict=True))
    at_x = low[0] + spacing_mm * np.arange(n_x, dtype=np.float64)
    at_y = low[1] + spacing_mm * np.arange(n_y, dtype=np.float64)
    pair_middle, cell_middle = 0.5 * (pair_edge[1:] + pair_edge[:-1]), 0.5 * (cell_edge[1:] + cell_edge[:-1])
    widths = machine.beam.sigma_mm if sigma_mm is None else sigma_mm
    primary = machine.beam.primary_fluence(np.hypot(pair_middle[:, None], cell_middle[None, :]))
    return Spread(
        pairs=pairs,
        cell_edge_mm=cell_edge,
        start_mm=low,
        spacing_mm=spacing_mm,
        shape=(n_y, n_x),
        primary=primary.astype(np.float32),
        along_x=tuple(_strip_matrix(at_x, cell_edge, sigma) for sigma in widths),
        along_y=tuple(_strip_matrix(at_y, pair_edge, sigma) for sigma in widths),
    )

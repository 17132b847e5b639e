"""The factored pencil beam in closed form: depth doses, squares, calibration, and maps against a dense sum."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import erf

from doseledger.planning.dose.kernels import (
    calibration_gy_per_mu,
    component_depth_dose,
    depth_table,
    gaussian_depth_dose,
    spread_for,
    square_field_factor,
)
from doseledger.planning.machine.linac import Beam, Machine, load_machine


@pytest.fixture(scope="module")
def beam(machine: Machine) -> Beam:
    """Round numbers, electrons, and a fluence that falls from the axis."""
    return load_machine("tissue").beam.model_copy(
        update={
            "attenuation_per_mm": 0.005, "buildup_per_mm": [0.2, 0.02, 0.01], "sigma_mm": [2.0, 6.0, 20.0, 60.0],
            "amplitude": [[0.6, 0.3, 0.1, 0.05], [0.01, 0.02, 0.03, 0.04], [0.1, 0.0, 0.2, 0.0]],
            "fluence_distance_mm": [0.0, 100.0], "fluence_relative": [1.0, 0.8],
            "reference_gy_per_mu": 0.0075, "reference_field_mm": 50.0, "reference_depth_mm": 80.0,
        }
    )  # fmt: skip


def test_depth_dose_is_that_of_bortfeld_1993_and_of_the_electrons(beam: Beam) -> None:
    depth = np.array([0.0, 10.0, 100.0])
    wanted = [[b / (b - 0.005) * (np.exp(-0.005 * d) - np.exp(-b * d)) for b in (0.2, 0.02, 0.01)] for d in depth]
    assert component_depth_dose(beam, depth) == pytest.approx(np.array(wanted))
    assert beam.electrons is not None
    left = np.exp(-beam.electrons.attenuation_per_mm * depth)
    with_them = np.array(wanted) @ np.array(beam.amplitude) + np.outer(left, beam.electrons.amplitude)
    assert gaussian_depth_dose(beam, depth) == pytest.approx(with_them)
    without = beam.model_copy(update={"electrons": None})
    assert gaussian_depth_dose(without, depth) == pytest.approx(np.array(wanted) @ np.array(beam.amplitude))


@pytest.mark.parametrize("side_mm", [3.0, 50.0])
def test_a_square_of_even_fluence_gathers_the_square_of_an_error_function(beam: Beam, side_mm: float) -> None:
    even = beam.model_copy(update={"fluence_relative": [1.0, 1.0]})
    wanted = erf(0.5 * side_mm / np.sqrt(2.0) / np.array(beam.sigma_mm)) ** 2
    assert square_field_factor(even, side_mm) == pytest.approx(wanted, rel=1e-6)


def test_a_square_gathers_what_its_cells_of_two_and_a_half_mm_bring(beam: Beam) -> None:
    edge = np.linspace(-25.0, 25.0, 21)
    middle = edge[:-1] + 1.25
    fluence = 1.0 - 0.002 * np.hypot(middle[:, None], middle)
    for sigma, found in zip(beam.sigma_mm, square_field_factor(beam, 50.0), strict=True):
        share = 0.5 * np.diff(erf(edge / (np.sqrt(2.0) * sigma)))
        assert found == pytest.approx(share @ fluence @ share, rel=1e-6)


def test_the_table_gives_the_reference_dose_at_the_reference_depth_and_reaches_800_mm(beam: Beam) -> None:
    factor = calibration_gy_per_mu(beam)
    field = square_field_factor(beam, 50.0)
    assert factor * (gaussian_depth_dose(beam, np.array([80.0]))[0] @ field) == pytest.approx(0.0075)
    table = depth_table(beam)
    assert table.shape == (801, 4)
    assert table[80] @ field == pytest.approx(0.0075)
    assert table[[0, 7, 800]] == pytest.approx(factor * gaussian_depth_dose(beam, np.array([0.0, 7.0, 800.0])))


@pytest.fixture(scope="module")
def uneven(machine: Machine, beam: Beam) -> Machine:
    """The generic leaves (10 mm outside, 5 mm inside) with that beam."""
    return machine.model_copy(update={"beam": beam})


def test_a_spread_has_the_pairs_and_cells_that_the_jaws_leave_and_maps_that_reach_beyond_them(uneven: Machine) -> None:
    # Pairs of 10 mm lie beyond ±100 mm; the jaws cut the outermost ones.
    found = spread_for(uneven, (-31.0, 22.0), (-104.0, -77.0), 4.0, 10.0)
    assert found.pairs == slice(9, 15)
    assert found.cell_edge_mm == pytest.approx(np.linspace(-31.0, 22.0, 15))
    assert (found.start_mm, found.spacing_mm, found.shape) == ((-41.0, -114.0), 4.0, (13, 20))
    y_edge = np.array([-104.0, -100.0, -95.0, -90.0, -85.0, -80.0, -77.0])
    x_edge = found.cell_edge_mm
    y, x = 0.5 * (y_edge[1:] + y_edge[:-1]), 0.5 * (x_edge[1:] + x_edge[:-1])
    # Beyond the last distance the last value holds.
    assert found.primary == pytest.approx(np.maximum(1.0 - 0.002 * np.hypot(y[:, None], x), 0.8), rel=1e-6)
    assert found.primary.dtype == np.float32
    at_x, at_y = -41.0 + 4.0 * np.arange(20), -114.0 + 4.0 * np.arange(13)
    for k, sigma in enumerate(uneven.beam.sigma_mm):
        for matrix, at, edge in ((found.along_x[k], at_x, x_edge), (found.along_y[k], at_y, y_edge)):
            assert matrix.dtype == np.float32
            reach = erf((edge - at[:, None]) / (np.sqrt(2.0) * sigma))
            assert matrix == pytest.approx(0.5 * np.diff(reach, axis=1), abs=1e-6)


def test_jaws_on_the_edge_of_a_pair_leave_it_out_and_a_slit_has_one_cell(uneven: Machine) -> None:
    found = spread_for(uneven, (-1.0, 1.0), (-5.0, 5.0), 4.0, 8.0, [3.0, 5.0, 7.0, 9.0])
    assert (found.pairs, found.cell_edge_mm.tolist()) == (slice(29, 31), [-1.0, 1.0])
    assert found.shape == (8, 6)
    # Whole multiples of the spacing have no cell more.
    assert len(spread_for(uneven, (-4.0, 4.0), (-5.0, 5.0), 4.0, 8.0).cell_edge_mm) == 3
    assert found.along_x[1][2, 0] == pytest.approx(erf(1.0 / np.sqrt(50.0)) * np.exp(-0.5 * (1 / 5.0) ** 2), rel=0.02)


def test_maps_and_their_transpose_are_the_sums_of_all_cells(uneven: Machine) -> None:
    spread = spread_for(uneven, (-31.0, 22.0), (-104.0, -77.0), 4.0, 10.0)
    rng = np.random.default_rng(1)
    fluence = rng.random((3, 6, 14)).astype(np.float32)
    maps = spread.maps(fluence)
    assert (maps.shape, maps.dtype) == ((3, 13, 20, 4), np.float32)
    primed = fluence.astype(float) * spread.primary
    dense = [np.einsum("yp,spc,xc->syx", y, primed, x) for x, y in zip(spread.along_x, spread.along_y, strict=True)]
    assert maps == pytest.approx(np.stack(dense, axis=-1), abs=1e-5)
    slope = rng.normal(size=maps.shape).astype(np.float32)
    back = spread.adjoint(slope)
    wanted = sum(
        np.einsum("yp,syx,xc->spc", y, slope[..., g], x)
        for g, (x, y) in enumerate(zip(spread.along_x, spread.along_y, strict=True))
    )
    assert back == pytest.approx(wanted * spread.primary, abs=1e-5)

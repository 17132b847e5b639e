"""A beam fitted to measurements: known beams come back, published ones are met, and what is missing is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from doseledger.cli.app import app
from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid
from doseledger.core.plan import Arc, Plan
from doseledger.planning.commissioning.fit import fit_machine, gathered, profile_of
from doseledger.planning.commissioning.scans import Curve, read_scans
from doseledger.planning.dose.engine import dose_at_points
from doseledger.planning.dose.kernels import gaussian_depth_dose
from doseledger.planning.dose.raytrace import DensityMap
from doseledger.planning.machine.linac import Machine, load_machine

DATA = Path(__file__).parents[1] / "data"
HEAD = "kind,side_mm,ssd_mm,depth_mm,x_mm,value"
# Total output factors of square fields, TrueBeam Representative Beam Data (Varian, 2011), as in test_engine_water.py.
TRUEBEAM_OUTPUT = {30: 0.880, 40: 0.906, 50: 0.928, 70: 0.963, 150: 1.039, 200: 1.067}


def table(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join([HEAD, *rows]), encoding="utf-8")
    return path


@pytest.fixture
def artiste(tmp_path: Path) -> Path:
    """The measurements behind the generic machine, as a table."""
    ratios = np.loadtxt(DATA / "artiste_6mv_tpr.csv", delimiter=",")
    output = np.loadtxt(DATA / "artiste_6mv_output.csv", delimiter=",")
    rows = [
        f"tpr,{side:g},,{depth:g},,{value}"
        for column, side in enumerate(ratios[0, 1:], start=1)
        if side <= 200
        for depth, value in zip(ratios[1:, 0], ratios[1:, column], strict=True)
    ]
    rows += [f"output,{side},950,50,,{value}" for side, value in output if side <= 205]
    return table(tmp_path / "artiste.csv", rows)


@pytest.fixture
def truebeam(tmp_path: Path) -> Path:
    """Depth doses, profiles and output factors of another machine."""
    depths = np.loadtxt(DATA / "truebeam_6mv_depth_dose.csv", delimiter=",")
    profiles = np.loadtxt(DATA / "truebeam_6mv_profiles.csv", delimiter=",")
    rows = [f"depth_dose,{side:g},1000,{depth:g},,{value}" for side, depth, value in depths]
    rows += [f"profile,{side:g},1000,{depth:g},{x:g},{value}" for side, depth, x, value in profiles]
    rows += [f"output,{side},950,50,,{value}" for side, value in TRUEBEAM_OUTPUT.items()]
    return table(tmp_path / "truebeam.csv", rows)


def elsewhere(machine: Machine) -> Machine:
    """A machine whose beam is far from the one that is sought."""
    beam = machine.beam.model_copy(
        update={"attenuation_per_mm": 0.0055, "buildup_per_mm": [0.2, 0.03, 0.012], "sigma_mm": [3.0, 7.0, 30.0, 80.0]}
    )
    return machine.model_copy(update={"beam": beam})


def test_the_measurements_behind_the_generic_machine_give_it_again(artiste: Path, machine: Machine) -> None:
    curves, left_out = read_scans([artiste])
    assert left_out == []
    again = fit_machine(curves, machine, name="Artiste", gy_per_mu=None).machine.beam
    assert again.attenuation_per_mm == pytest.approx(machine.beam.attenuation_per_mm, rel=1e-3)
    assert again.sigma_mm == pytest.approx(machine.beam.sigma_mm, rel=1e-3)
    np.testing.assert_allclose(again.amplitude, machine.beam.amplitude, atol=1e-3)


def test_from_a_start_elsewhere_the_fit_is_as_near(artiste: Path, machine: Machine) -> None:
    fit = fit_machine(read_scans([artiste])[0], elsewhere(machine), name="Artiste", gy_per_mu=0.0070)
    assert fit.machine.beam.reference_gy_per_mu == 0.0070
    assert all(row["worst_percent"] < 1.0 for row in fit.rows if row["side_mm"] >= 20)
    assert {row["kind"] for row in fit.rows} == {"tpr"}


def test_what_the_engine_gives_in_water_is_fitted_to_half_a_percent(
    machine: Machine, make_plan: Callable[..., Plan], make_field: Callable[..., Arc]
) -> None:
    grid = Grid((41, 83, 41), (10.0, 5.0, 10.0), (-200.0, -7.5, -200.0))
    water = DensityMap(np.ones(grid.shape_zyx, dtype=np.float32), grid)
    water.relative[:, :2] = 0.0

    def dose(side: float, points: np.ndarray) -> np.ndarray:
        return dose_at_points(make_plan(make_field(side)), water, machine, points.astype(np.float32), 1).astype(float)

    def along(axis: int, at: np.ndarray, depth: float = 0.0) -> np.ndarray:
        points = np.zeros((len(at), 3))
        points[:, 1] = depth
        points[:, axis] = at
        return points

    # The isocentre lies in the surface here, so the field's side holds there.
    depth, x = np.arange(10.0, 301.0, 10.0), np.arange(-90.0, 90.1, 2.0)
    curves = []
    for side in (40.0, 100.0, 150.0):
        curves.append(Curve("depth_dose", side, 1000.0, np.nan, depth, dose(side, along(1, depth)), "engine"))
        at_50 = dose(side, along(1, np.array([50.0])))
        curves.append(Curve("output", side, 1000.0, 50.0, np.array([50.0]), at_50, "engine"))
    for deep in (50.0, 100.0):
        half = x[x >= 0]
        values = dose(100.0, along(0, half, deep))
        curves.append(Curve("profile", 100.0, 1000.0, deep, half, values / values[0], "engine"))
    fit = fit_machine(curves, elsewhere(machine), name="again", gy_per_mu=None)
    assert all(row["rms_percent"] < 0.5 for row in fit.rows), fit.rows
    assert fit.machine.beam.sigma_mm[0] == pytest.approx(machine.beam.sigma_mm[0], abs=0.5)
    found = profile_of(fit.machine.beam, curves[-1], machine.source_axis_mm, np.array([40.0]))
    assert found == pytest.approx(np.interp(40.0, curves[-1].at_mm, curves[-1].value), abs=0.01)


def test_another_machines_depth_doses_and_profiles_are_met(truebeam: Path, machine: Machine) -> None:
    curves, _ = read_scans([truebeam])
    fit = fit_machine(curves, machine, name="TrueBeam", gy_per_mu=None)
    worst = {kind: max(r["worst_percent"] for r in fit.rows if r["kind"] == kind) for kind in ("depth_dose", "profile")}
    # In the penumbra a chamber 6 mm wide blurs what it measures.
    assert worst["depth_dose"] < 0.6
    assert worst["profile"] < 5.0
    before = max(
        np.abs(profile_of(machine.beam, c, 1000.0, c.at_mm) - c.value).max() for c in curves if c.kind == "profile"
    )
    assert 100.0 * before > worst["profile"]


def test_the_last_digit_and_the_start_of_a_search_move_no_beam(truebeam: Path, machine: Machine) -> None:
    # Another processor adds up in another order: a search that had not come to its end gave build-ups of 0.4 to 10^149.
    curves, _ = read_scans([truebeam])

    def moved(part: float) -> Machine:
        beam = machine.beam
        changed = {"attenuation_per_mm": beam.attenuation_per_mm * (1 + part),
                   "sigma_mm": [width * (1 + part) for width in beam.sigma_mm]}  # fmt: skip
        return machine.model_copy(update={"beam": beam.model_copy(update=changed)})

    starts = [machine, moved(1e-11), moved(0.01), elsewhere(machine)]
    beams = [fit_machine(curves, start, name="TrueBeam", gy_per_mu=None).machine.beam for start in starts]
    for beam in beams[1:]:
        assert beam.attenuation_per_mm == pytest.approx(beams[0].attenuation_per_mm, rel=1e-3)
        assert beam.sigma_mm == pytest.approx(beams[0].sigma_mm, rel=1e-3)
        assert beam.buildup_per_mm == pytest.approx(beams[0].buildup_per_mm, rel=5e-3)


@pytest.mark.parametrize(("times", "found"), [(0.1, "goes from .+ to 30 mm"), (10.0, "keeps 104 %")])
def test_depths_in_another_unit_are_no_beam(artiste: Path, machine: Machine, times: float, found: str) -> None:
    curves = [
        replace(curve, depth_mm=curve.depth_mm * times)
        if curve.kind == "output"
        else replace(curve, at_mm=curve.at_mm * times)
        for curve in read_scans([artiste])[0]
    ]
    with pytest.raises(BadInput, match=f"{found}.+ Is it in mm"):
        fit_machine(curves, machine, name="x", gy_per_mu=None)


def test_electrons_of_head_and_air_are_found_again_where_depth_doses_begin_at_2_mm(
    machine: Machine, truebeam: Path
) -> None:
    tissue = load_machine("tissue").beam
    depth = np.array([2.0, 3.0, 4.0, 5.0, 6.0, 8.0, *np.arange(10.0, 301.0, 10.0)])
    curves = [Curve("output", 100.0, 900.0, 100.0, np.array([100.0]), np.ones(1), "engine")]
    for side in (30.0, 60.0, 100.0, 200.0):
        dose = gaussian_depth_dose(tissue, depth) @ gathered(tissue, side, np.zeros(1))[0]
        curves.append(Curve("tpr", side, np.nan, np.nan, depth, dose, "engine"))
        at_100 = np.interp(100.0, depth, dose) / np.interp(100.0, depth, curves[1].value)
        curves.append(Curve("output", side, 900.0, 100.0, np.array([100.0]), np.array([at_100]), "engine"))
    found = fit_machine(curves[1:], machine, name="again", gy_per_mu=None)
    beam = found.machine.beam
    assert beam.follows_density
    assert beam.electrons is not None
    for side in (30.0, 60.0, 100.0, 200.0):
        near = depth[depth <= 15]
        wanted, again = (gaussian_depth_dose(one, near) @ gathered(one, side, np.zeros(1))[0] for one in (tissue, beam))
        assert again / again[-1] == pytest.approx(wanted / wanted[-1], abs=0.015)
    assert all(row["worst_percent"] < 1.5 for row in found.rows), found.rows
    # Scans that begin deeper tell nothing of them: what the other machine has stays.
    deep, _ = read_scans([truebeam])
    assert fit_machine(deep, machine, name="TrueBeam", gy_per_mu=None).machine.beam.electrons is None
    like = machine.model_copy(update={"beam": tissue})
    assert fit_machine(deep, like, name="TrueBeam", gy_per_mu=None).machine.beam.electrons == tissue.electrons


def test_a_wide_gaussian_gathers_less_of_a_small_field(machine: Machine) -> None:
    small, large = (gathered(machine.beam, side, np.zeros(1))[0] for side in (20.0, 200.0))
    assert np.all(small < large)
    assert np.all(np.diff(small) < 0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "output factors"),
        (["output,100,950,50,,1", "output,40,950,100,,0.9"], "at 2 depths"),
        (["output,40,950,50,,0.9", "output,60,950,50,,0.95"], "depth doses of 100 mm fields; wanted are three"),
        (["output,20,950,50,,0.8", "output,60,950,50,,0.9", "depth_dose,200,1000,50,,1"], "measure the field's output"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, machine: Machine, lines: list[str], message: str) -> None:
    depth = [f"depth_dose,100,1000,{d},,{100 - d / 4}" for d in range(10, 300, 20)]
    wide = [line.replace(",50,,1", f",{d},,1") for line in lines if "depth_dose" in line for d in range(10, 300, 20)]
    path = table(tmp_path / "some.csv", [*depth, *wide, *(line for line in lines if "depth_dose" not in line)])
    with pytest.raises(BadInput, match=message):
        fit_machine(read_scans([path])[0], machine, name="x", gy_per_mu=None)


def test_the_command_writes_a_machine_that_plans_can_be_made_for(artiste: Path, tmp_path: Path) -> None:
    out = tmp_path / "linac1.yaml"
    done = CliRunner().invoke(app, ["machine", "fit", str(artiste), "--name", "Linac1", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "Linac1, fitted to 10 curves" in done.output
    assert load_machine(out).name == "Linac1"
    assert "artiste.csv (SHA256" in out.read_text(encoding="utf-8")

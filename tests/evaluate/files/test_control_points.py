"""Control points of plans as arrays: what passes is what the leaves leave open, and the form is the contract's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from doseledger.cli.app import app
from doseledger.core.plan import Arc, Plan
from doseledger.evaluate.files.control_points import control_point_arrays
from doseledger.parity.check import check_data_set
from doseledger.parity.contract import load_contract
from doseledger.planning.machine.linac import load_machine


def field(x_mm: tuple[float, float], jaw_y_mm: tuple[float, float] = (-50.0, 50.0), mu: float = 100.0) -> Arc:
    """A static field between two leaf positions."""
    leaf = np.zeros((2, 2, load_machine().leaves.n_pairs))
    leaf[:, 0], leaf[:, 1] = x_mm
    return Arc(
        "F",
        np.array([90.0, 90.0]),
        None,
        10.0,
        0.0,
        leaf,
        (-60.0, 60.0),
        jaw_y_mm,
        np.array([0.0, mu]),
        (1.0, 2.0, 3.0),
    )


@pytest.fixture
def arrays() -> Callable[..., dict[str, np.ndarray]]:
    machine = load_machine()
    closed = machine.model_copy(
        update={"beam": machine.beam.model_copy(update={"leaf_gap_mm": 0.0, "leaf_transmission": 0.0})}
    )

    def make(*arcs: Arc) -> dict[str, np.ndarray]:
        plan = Plan("test", closed.name, 6.0, arcs, 1)
        return control_point_arrays(plan, closed.leaves.boundary_mm, closed)

    return make


def test_what_passes_is_the_monitor_units_times_the_open_area(arrays: Callable[..., dict[str, np.ndarray]]) -> None:
    found = arrays(field((-20.0, 30.0), (-50.0, 47.5)), field((0.0, 10.0), mu=50.0))
    area = np.diff(found["pair_edge_mm"])[:, None] * np.diff(found["cell_edge_mm"])[None, :]
    total = (found["fluence_mu"] * area).sum(axis=(1, 2))
    assert total == pytest.approx([100.0 * 50.0 * 97.5, 50.0 * 10.0 * 100.0], rel=1e-4)
    assert found["beam"].tolist() == [0, 1]
    assert found["gantry_deg"].tolist() == [90.0, 90.0]
    assert found["jaw_mm"][0].tolist() == [-60.0, 60.0, -50.0, 47.5]
    assert found["isocentre_mm"][1].tolist() == [1.0, 2.0, 3.0]


def test_a_leaf_that_moves_lets_through_as_long_as_it_is_open(arrays: Callable[..., dict[str, np.ndarray]]) -> None:
    arc = field((0.0, 0.0))
    leaf = arc.leaf_mm.copy()
    leaf[1, 1] = 20.0
    found = arrays(replace(arc, leaf_mm=leaf))
    row = found["fluence_mu"][0, found["pair_edge_mm"].searchsorted(0.0)]
    middle = 0.5 * (found["cell_edge_mm"][1:] + found["cell_edge_mm"][:-1])
    there = (middle > 0) & (middle < 20)
    assert row[there] == pytest.approx(100.0 * (1 - middle[there] / 20.0), abs=0.1)
    assert np.abs(row[~there]).max() < 0.1


def test_the_command_writes_what_the_contract_asks_for(shared_data: Path, repository: Path, tmp_path: Path) -> None:
    plans = sorted((shared_data / "dicom" / "rtplans").rglob("*.dcm"))
    done = CliRunner().invoke(app, ["plan", "control-points", *map(str, plans), "--out", str(tmp_path / "out")])
    written = sorted((tmp_path / "out").glob("*.npz"))
    assert written, done.output
    contract = load_contract(repository / "validation/contracts/control_points.yaml")
    assert check_data_set(tmp_path / "out", contract).findings == []


def test_a_file_that_is_no_plan_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(b"nothing")
    done = CliRunner().invoke(app, ["plan", "control-points", str(tmp_path / "x.dcm"), "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "x.dcm" in str(done.exception)


def test_two_files_of_one_name_are_refused_as_they_would_be_one_npz(tmp_path: Path) -> None:
    plans = [str(tmp_path / name / "RP.dcm") for name in ("a", "b")]
    done = CliRunner().invoke(app, ["plan", "control-points", *plans, "--out", str(tmp_path / "out")])
    assert "1 names are there twice (RP)" in str(done.exception)
    assert not (tmp_path / "out").exists()

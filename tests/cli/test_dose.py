"""Gamma as a physicist reads it on the console."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from doseledger.cli.dose import app


def test_gamma_tells_what_it_verified_and_what_it_could_not_count(tmp_path: Path) -> None:
    dose = np.random.default_rng(1).uniform(50, 60, (6, 8, 12)).astype(np.float32)
    for name, part in (("plan", dose), ("cut", dose[:, :, :5])):
        np.savez(tmp_path / f"{name}.npz", dose_gy=part, spacing_mm=(3.0, 3.0, 3.0), origin_mm=(0.0, 0.0, 0.0))
    words = ["dose", "gamma", str(tmp_path / "plan.npz"), str(tmp_path / "cut.npz"), "--interp", "3", "--verify", "4"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "; 240 more have no gamma" in done.output
    assert "; largest difference from pymedphys " in done.output
    assert "more have no gamma" not in CliRunner().invoke(app, [*words[:3], words[2]]).output

"""Fixtures of cohorts."""

from __future__ import annotations

import pytest

from doseledger.core.settings import PhantomSettings


@pytest.fixture(scope="session")
def poor_plans() -> PhantomSettings:
    """Settings of one patient with a poor plan on coarse voxels, made in a few seconds."""
    return PhantomSettings(
        n_patients=1,
        seed=3,
        in_plane_pixels=96,
        segments_per_arc=24,
        iterations=16,
        attempts=1,
        dose_grid_mm=6.0,
        near_bowel_share=0.0,
    )

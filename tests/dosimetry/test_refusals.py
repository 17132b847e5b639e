"""Refusals of doses and gamma maps whose shapes disagree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid
from doseledger.dosimetry.dvh.subvoxel import sampled_dose
from doseledger.dosimetry.gamma.criteria import GammaCriteria
from doseledger.dosimetry.gamma.grids import DosePair, pose_problem
from doseledger.dosimetry.gamma.reference import verify_points
from doseledger.dosimetry.openkbp_scores import combine_scores

GRID = Grid((2, 3, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
AXES = tuple(np.arange(float(n)) for n in (2, 3, 4))
DOSE = np.ones((2, 3, 4))
PAIR = DosePair(AXES, DOSE, AXES, DOSE)
CRITERIA = GammaCriteria(3.0, 3.0, 10.0, False, 10, 2.0)


def test_a_dose_or_a_structure_of_another_shape_than_its_grid_is_refused() -> None:
    inside, short = np.ones((2, 3, 4), np.bool_), np.ones((2, 3, 3))
    with pytest.raises(BadInput, match=r"the dose has \(2, 3, 3\) voxels, its grid \(2, 3, 4\)"):
        sampled_dose(short, GRID, inside, GRID, 1000)
    with pytest.raises(BadInput, match=r"the structure has \(2, 3, 3\) voxels, its grid \(2, 3, 4\)"):
        sampled_dose(DOSE, GRID, short > 0, GRID, 1000)


def test_gamma_of_integers_or_of_another_shape_than_the_axes_is_refused() -> None:
    with pytest.raises(BadInput, match="gamma: the reference dose is int64; give float32 or float64 in Gy"):
        pose_problem(replace(PAIR, reference_gy=DOSE.astype(np.int64)), CRITERIA)
    with pytest.raises(BadInput, match=r"the evaluation dose has shape \(2, 3, 3\) and its axes \(2, 3, 4\)"):
        pose_problem(replace(PAIR, evaluation_gy=DOSE[..., 1:]), CRITERIA)


def test_a_map_of_another_shape_than_the_reference_is_not_verified() -> None:
    with pytest.raises(BadInput, match=r"the map has shape \(2, 3\), the reference \(2, 3, 4\); they must agree"):
        verify_points(np.zeros((2, 3)), PAIR, CRITERIA, n_points=2, rng=np.random.default_rng(1))


def test_nobody_has_no_score() -> None:
    with pytest.raises(BadInput, match="no patients to score"):
        combine_scores([])

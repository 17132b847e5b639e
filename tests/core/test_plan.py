"""A beam's arrays belong together; a plan sums them."""

from __future__ import annotations

import numpy as np
import pytest

from doseledger.core.cleaning import Cleaning, clean_labels
from doseledger.core.errors import BadInput
from doseledger.core.plan import Arc, Plan


def arc(n: int = 3, n_leaves: int = 3, banks: int = 2, n_mu: int = 3, leaf_axes: int = 3) -> Arc:
    shape = (n_leaves, banks, 4)[:leaf_axes]
    mu = np.arange(n_mu) ** 2.0
    return Arc("A", np.zeros(n), True, 0.0, 0.0, np.zeros(shape), (0.0, 1.0), (0.0, 1.0), mu, (0.0, 0.0, 0.0))


def test_a_beam_has_two_control_points_at_least_with_two_banks_each() -> None:
    assert arc(2, 2, 2, 2).n_control_points == 2
    for odd in ((1, 1, 2, 1), (3, 2, 2, 3), (3, 3, 1, 3), (3, 3, 2, 2), (3, 3, 2, 3, 2)):
        with pytest.raises(BadInput, match="wanted n ≥ 2"):
            arc(*odd)


def test_monitor_units_are_summed_over_segments_and_beams() -> None:
    assert arc(4, 4, 2, 4).segment_mu.tolist() == [1.0, 3.0, 5.0]
    plan = Plan("P", "M", 6.0, (arc(), arc(4, 4, 2, 4)), 28)
    assert (plan.total_mu, plan.prescription_gy) == (4.0 + 9.0, {})


def test_labels_are_cleaned_one_after_the_other_and_keep_out_of_each_other() -> None:
    labels = np.zeros((3, 7, 9), np.uint8)
    labels[:, 1:6, 1:6] = 1
    labels[1, 3, 2:4] = (0, 2)
    labels[0, 0, 8] = 1
    cleaned, said = clean_labels(labels, 3, Cleaning(largest_part=True, fill_holes=True))
    assert said == [
        "largest of 2 parts (-1 voxels), holes filled (+1 voxels)",
        "largest of 1 parts (-0 voxels), holes filled (+0 voxels)",
        "largest of 0 parts (-0 voxels), holes filled (+0 voxels)",
    ]
    assert cleaned[1, 3, 1:5].tolist() == [1, 1, 2, 1]
    assert (cleaned[0, 0, 8], labels[0, 0, 8]) == (0, 1)
    assert np.bincount(cleaned.ravel()).tolist() == [189 - 75, 74, 1]

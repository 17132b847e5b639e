"""A cohort without dose: parts of labels, features of MR, near-copies of small images, drift of the image alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import Protocol, load_protocol
from doseledger.gates.data.doses import judge_dose
from doseledger.gates.data.fingerprints import take_fingerprint
from doseledger.gates.drift.case_inputs import measure_inputs
from doseledger.gates.features import measure_image, measure_parts
from doseledger.gates.limits import load_thresholds


def brain(seed: int = 1) -> Case:
    """A small MR image with one structure of two parts, in thousandths of its range."""
    rng = np.random.default_rng(seed)
    shape = (20, 24, 22)
    smooth = np.kron(rng.uniform(0, 1000, (5, 6, 6)), np.ones((4, 4, 4)))[:20, :24, :22]
    mask = np.zeros((1, *shape), dtype=bool)
    mask[0, 4:8, 4:8, 4:8], mask[0, 15, 15, 15] = True, True
    whole = np.ones(shape, dtype=bool)
    return Case(
        grid=Grid(shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
        ct_hu=smooth.astype(np.int16),
        structure_names=("Front",),
        masks=mask,
        sdf_mm=np.zeros((1, *shape), dtype=np.float16),
        present=np.array([True]),
        body=whole,
        valid_dose=whole,
        full_shape_zyx=shape,
        crop_start_zyx=(0, 0, 0),
        meta={"case_id": "brain_1", "modality": "MR"},
    )


@pytest.fixture
def protocol(repository: Any) -> Protocol:
    return load_protocol(repository / "validation/cohorts/hippocampus/protocol.yaml")


def test_parts_are_counted_and_the_largest_has_its_share() -> None:
    case = brain()
    assert measure_parts(case) == {"Front_parts": 2.0, "Front_largest_part_percent": pytest.approx(100 * 64 / 65)}
    nothing = replace(case, masks=np.zeros_like(case.masks), present=np.array([False]))
    assert all(math.isnan(value) for value in measure_parts(nothing).values())
    touching = case.masks.copy()
    touching[0, 15, 15, 15], touching[0, 8, 8, 8] = False, True
    assert measure_parts(replace(case, masks=touching))["Front_parts"] == 1.0


def test_an_mr_image_has_features_without_hu_and_no_air() -> None:
    row = measure_image(brain())
    assert {"mr_median_body", "mr_p99_body", "body_extent_z_mm"} <= set(row)
    assert not [name for name in row if "hu" in name or "air" in name]


def test_drift_of_a_cohort_without_dose_looks_at_the_image_alone(protocol: Protocol) -> None:
    row = measure_inputs(brain(), protocol)
    assert not [name for name in row if name.startswith("Front")]
    shares = [float(value) for name, value in row.items() if name.startswith("mr_share_")]
    assert len(shares) == 9
    assert sum(shares) == pytest.approx(1.0)


def test_small_images_are_told_apart_and_a_noisy_copy_is_known() -> None:
    one, other = (take_fingerprint(brain(seed)) for seed in (1, 2))
    rng, case = np.random.default_rng(3), brain()
    noisy = replace(case, ct_hu=(case.ct_hu + rng.normal(0, 20, case.ct_hu.shape)).astype(np.int16))
    assert float(one.ct @ take_fingerprint(noisy).ct) > 0.95
    assert float(one.ct @ other.ct) < 0.9
    assert one.image == "MR"


def test_limits_without_valid_dose_are_refused_where_there_is_a_dose(
    repository: Any, make_case: Callable[..., Case]
) -> None:
    layout = Layout(repository, "phantom")
    limits = load_thresholds(layout).data.model_copy(update={"valid_dose": None})
    with pytest.raises(BadInput, match=r"data\.valid_dose is null, and protocol .* has a dose"):
        judge_dose(make_case(), load_protocol(layout.protocol), limits)

"""Each limit of deliverability: just inside passes, just outside is named, and what is no number never passes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from doseledger.core.plan import Arc, Plan
from doseledger.planning.machine.check import check_plan
from doseledger.planning.machine.linac import Machine

NO_NUMBERS = [math.nan, math.inf, -math.inf]
N = 4
Change = Callable[[Arc, float], Arc]


@pytest.fixture
def plan(machine: Machine) -> Plan:
    """Three segments of 6° and 8 MU at full speed, a second each, leaves at rest: a gap of 25 mm in jaws of 100 mm."""
    leaf = np.zeros((N, 2, machine.leaves.n_pairs))
    leaf[:, 1] = 25.0
    arc = Arc("ARC1", 100.0 + 6.0 * np.arange(N), True, 10.0, 0.0, leaf, (-50.0, 50.0), (-60.0, 60.0),
              8.0 * np.arange(N), (0.0, 0.0, 0.0))  # fmt: skip
    return Plan("test", machine.name, 6.0, (arc,), 28)


def with_leaf(arc: Arc, index: tuple[int | slice, ...], value: float) -> Arc:
    leaf = arc.leaf_mm.copy()
    leaf[index] = value
    return replace(arc, leaf_mm=leaf)


def with_last(values: np.ndarray, value: float) -> np.ndarray:
    return np.append(values[:-1], value)


# What is set to a value; a value just inside its limit, one just outside, and what is said of the latter.
LIMITS: dict[str, tuple[Change, float, float, str]] = {
    "jaw X": (lambda a, v: replace(a, jaw_x_mm=(v, 50.0)), -200.0109, -200.0112, "jaws X at -200.011"),
    "jaw Y": (lambda a, v: replace(a, jaw_y_mm=(-60.0, v)), 200.01, 200.02, "jaws Y at -60 and 200.02"),
    "least opening": (lambda a, v: replace(a, jaw_y_mm=(0.0, v)), 9.99, 9.98, "jaws Y open by 9.98 mm"),
    "least gap": (lambda a, v: with_leaf(a, (slice(None), 1, 7), v), 0.49, 0.48, "pair 8 is closer than the least gap"),
    "travel": (lambda a, v: with_leaf(a, (slice(None), 1, 0), v), 200.01, 200.02, "a leaf tip at 200.02 mm"),
    "span of a bank": (
        lambda a, v: replace(with_leaf(a, (slice(None), 1, 0), v), jaw_x_mm=(-50.0, 190.0)), 175.02, 175.03,
        "tips of one bank 150.03 mm apart",
    ),
    "aperture and jaw": (lambda a, v: with_leaf(a, (slice(None), 0, 30), v), -50.01, -50.02, "outside the jaws at -50"),
    "leaf speed": (lambda a, v: with_leaf(a, (slice(1, None), 1, 30), v), 50.02, 50.03, "moves 25.03 mm in 1.000 s"),
    "gantry speed": (
        lambda a, v: replace(a, meterset_mu=np.array([0.0, v, v + 8.0, v + 16.0])), 200.19, 200.21,
        "need the gantry at 0.300°/s",
    ),
    "dose rate": (
        lambda a, v: replace(a, meterset_mu=np.array([0.0, v, v + 8.0, v + 16.0])), 0.0833, 0.0832, "least 5 MU/min",
    ),
    "first meterset": (lambda a, v: replace(a, meterset_mu=a.meterset_mu + v), 9e-7, 1.1e-6, "the meterset begins at"),
    "gantry angle": (
        lambda a, v: replace(a, gantry_deg=np.array([0.0, 180.0, v]), leaf_mm=a.leaf_mm[:3], meterset_mu=240.0 *
                             np.arange(3), clockwise=True), 359.9, -0.1, "wanted 0 ≤ angle < 360°",
    ),
}  # fmt: skip


@pytest.mark.parametrize("limit", LIMITS)
def test_just_inside_passes_and_just_outside_is_named(limit: str, plan: Plan, machine: Machine) -> None:
    change, inside, outside, words = LIMITS[limit]
    assert not any(
        words[:12] in line for line in check_plan(replace(plan, arcs=(change(plan.arcs[0], inside),)), machine)
    )
    found = check_plan(replace(plan, arcs=(change(plan.arcs[0], outside),)), machine)
    assert any(words in line for line in found), found


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize(
    "change",
    [
        *(change for change, *_ in LIMITS.values()),
        lambda a, v: replace(a, collimator_deg=v),
        lambda a, v: replace(a, couch_deg=v),
        lambda a, v: replace(a, isocentre_xyz_mm=(0.0, v, 0.0)),
        lambda a, v: replace(a, gantry_deg=with_last(a.gantry_deg, v)),
        lambda a, v: replace(a, meterset_mu=with_last(a.meterset_mu, v)),
    ],
)
def test_what_is_no_number_never_passes(change: Change, value: float, plan: Plan, machine: Machine) -> None:
    with np.errstate(invalid="ignore"):
        assert check_plan(replace(plan, arcs=(change(plan.arcs[0], value),)), machine)


@pytest.mark.parametrize(("mu", "is_kept"), [(19_999.0, True), (20_001.0, False), (1e9, False)])
def test_a_static_field_delivers_no_more_than_any_machine_can(
    mu: float, is_kept: bool, machine: Machine, make_field: Callable[..., Arc], make_plan: Callable[..., Plan]
) -> None:
    leaf = np.zeros((2, 2, machine.leaves.n_pairs))
    leaf[:, 0], leaf[:, 1] = -50.0, 50.0
    field = replace(make_field(100.0, leaf_mm=leaf), meterset_mu=np.array([0.0, mu]))
    found = check_plan(make_plan(field), machine)
    assert (found == []) is is_kept
    assert is_kept or "MU, wanted at most 20000 MU" in found[0]


@pytest.mark.parametrize("energy", [0.0, 6.001, *NO_NUMBERS])
def test_another_energy_than_the_machines_is_named(energy: float, plan: Plan, machine: Machine) -> None:
    assert any("MV, Generic120 has 6 MV" in line for line in check_plan(replace(plan, energy_mv=energy), machine))


@pytest.mark.parametrize(("gap", "is_kept"), [(0.49, True), (0.48, False)])
def test_neighbouring_pairs_come_as_near_as_the_least_gap(
    gap: float, is_kept: bool, plan: Plan, machine: Machine
) -> None:
    strict = machine.model_copy(update={"leaves": machine.leaves.model_copy(update={"interdigitation": False})})
    leaf = plan.arcs[0].leaf_mm.copy()
    leaf[:, :, 20:] += 25.0 - gap
    found = check_plan(replace(plan, arcs=(replace(plan.arcs[0], leaf_mm=leaf),)), strict)
    assert any("interdigitate" in line for line in found) is not is_kept

"""Beam directions in the patient: IEC 61217 angles, head first and supine, LPS."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from doseledger.core.plan import Arc
from doseledger.planning.machine.geometry import beam_frame, gantry_at, gantry_turn_deg, turned


@pytest.mark.parametrize(
    ("gantry", "source"),
    [(0.0, (0, -1000, 0)), (90.0, (1000, 0, 0)), (180.0, (0, 1000, 0)), (270.0, (-1000, 0, 0))],
)
def test_the_source_stands_before_left_behind_and_right_of_the_patient(
    make_field: Callable[..., Arc], gantry: float, source: tuple[float, float, float]
) -> None:
    frame = beam_frame(make_field(), gantry, 1000.0)
    assert frame.source_xyz_mm.tolist() == pytest.approx(source, abs=1e-9)
    assert frame.along_xyz.tolist() == [0.0, 0.0, 1.0]


def test_a_couch_at_90_brings_the_beam_of_gantry_90_along_the_patient(make_field: Callable[..., Arc]) -> None:
    # Counter-clockwise from above by 90° the head goes from the gantry to the room's -X and the feet to +X, where the
    # source of gantry 90° stands.
    frame = beam_frame(make_field(couch_deg=90.0), 90.0, 1000.0)
    assert frame.source_xyz_mm.tolist() == pytest.approx([0.0, 0.0, -1000.0], abs=1e-9)


def test_the_frame_is_orthonormal_and_right_handed_at_any_angle(make_field: Callable[..., Arc]) -> None:
    frame = beam_frame(make_field(couch_deg=17.0), 33.0, 1000.0)
    axes = np.stack([frame.across_xyz, frame.along_xyz, -frame.down_xyz])
    assert np.allclose(axes @ axes.T, np.eye(3))
    assert np.linalg.det(axes) == pytest.approx(1.0)


def test_a_point_beyond_the_isocentre_projects_towards_the_axis(make_field: Callable[..., Arc]) -> None:
    frame = beam_frame(make_field(), 0.0, 1000.0)
    seen = frame.project(np.array([[55.0, 100.0, -110.0]]))
    assert seen[0].tolist() == pytest.approx([50.0, -100.0, 1100.0])


def test_the_collimator_turns_counter_clockwise_seen_from_the_source() -> None:
    # At 90° the X axis of the leaves lies along the gantry's +Y.
    assert turned(np.array([[0.0, 10.0]]), 90.0)[0].tolist() == pytest.approx([10.0, 0.0], abs=1e-12)


def test_arcs_turn_their_own_way_through_zero(make_field: Callable[..., Arc]) -> None:
    forth = make_field(gantry_deg=0.0, clockwise=True)
    forth = Arc(**{**forth.__dict__, "gantry_deg": np.array([358.0, 4.0])})
    back = Arc(**{**forth.__dict__, "gantry_deg": np.array([4.0, 358.0]), "clockwise": False})
    assert gantry_turn_deg(forth).tolist() == [6.0]
    assert gantry_turn_deg(back).tolist() == [-6.0]
    assert gantry_at(forth, 0, 0.5) == gantry_at(back, 0, 0.5) == pytest.approx(1.0)

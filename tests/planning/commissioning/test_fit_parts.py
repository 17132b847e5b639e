"""The parts of a fit by hand: what is compared, how it weighs, electrons and fluence, and the judgement."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.special import erf

from doseledger.core.errors import BadInput
from doseledger.planning.commissioning import fit
from doseledger.planning.commissioning.fit import (
    _as_k,
    _fit_electrons,
    _fit_fluence,
    _fit_points,
    _judge,
    _outputs,
    _Points,
    _points,
    _refuse_few,
    _refuse_no_linac,
    _Table,
    gathered,
    machine_as_yaml,
    profile_of,
)
from doseledger.planning.commissioning.scans import Curve
from doseledger.planning.dose.kernels import gaussian_depth_dose
from doseledger.planning.machine.linac import Beam, Machine, load_machine

NAN = float("nan")
OUTPUTS = (50.0, np.array([40.0, 100.0, 200.0]), np.array([0.9, 1.0, 1.06]))


def curve(kind: Any, side: float, at: Any, value: Any, ssd: float = 900.0, depth: float = NAN) -> Curve:
    return Curve(kind, side, ssd, depth, np.asarray(at, float), np.asarray(value, float), "scan.csv")


def output(side: float, value: float, depth: float = 50.0) -> Curve:
    return curve("output", side, [depth], [value], depth=depth)


@pytest.fixture(scope="module")
def beam(machine: Machine) -> Beam:
    return machine.beam.model_copy(
        update={"fluence_distance_mm": [0.0, 60.0, 120.0], "fluence_relative": [1, 1.1, 0.9]}
    )


def test_output_factors_are_sorted_and_relative_to_100_mm() -> None:
    depth, sides, factors = _outputs(
        [output(200.0, 2.5), output(40.0, 1.0), output(100.0, 2.0), curve("tpr", 9, [1], [1])]
    )
    assert (depth, sides.tolist(), factors.tolist()) == (50.0, [40.0, 100.0, 200.0], [0.5, 1.0, 1.25])
    # Relative to the 100 mm field already, where that is not among them.
    _, sides, factors = _outputs([output(40.0, 0.9)])
    assert (sides.tolist(), factors.tolist()) == ([40.0, 100.0], [0.9, 1.0])
    with pytest.raises(BadInput, match=r"output factors at 2 depths \(\[50\.0, 60\.0\] mm\)"):
        _outputs([output(40.0, 0.9), output(50.0, 0.9, 60.0)])
    with pytest.raises(BadInput, match="no output factors"):
        _outputs([])


@pytest.mark.parametrize("kind", ["depth_dose", "tpr"])
def test_a_depth_curve_loses_its_inverse_square_and_gets_the_fields_output_factor(kind: str) -> None:
    at = np.array([5.0, 50.0, 150.0])
    found = _as_k(curve(kind, 70.0, at, [8.0, 6.0, 2.0]), OUTPUTS, 1000.0)
    square = 1.0 if kind == "tpr" else ((900.0 + at) / 1000.0) ** 2
    bare = np.array([8.0, 6.0, 2.0]) * square
    assert (found.side_mm, found.depth_mm.tolist()) == (70.0, at.tolist())
    assert found.k == pytest.approx(bare * 0.95 / bare[1])
    # To the shallowest 10 mm electrons bring dose.
    deep = _Table(70.0, np.array([9.99, 10.0, 11.0]), np.array([1.0, 2.0, 3.0])).deep
    assert (deep.side_mm, deep.depth_mm.tolist(), deep.k.tolist()) == (70.0, [10.0, 11.0], [2.0, 3.0])


@pytest.mark.parametrize(("side", "is_taken"), [(39.3, True), (39.1, False), (203.9, True), (204.1, False)])
def test_a_field_is_compared_up_to_two_percent_beyond_those_with_an_output_factor(side: float, is_taken: bool) -> None:
    one = curve("tpr", side, [10.0, 50.0, 90.0], [3.0, 2.0, 1.0])
    if is_taken:
        assert _as_k(one, OUTPUTS, 1000.0).k[1] == pytest.approx(0.9 if side < 40 else 1.06)
    else:
        with pytest.raises(BadInput, match=rf"a tpr of {side:g} mm, output factors are of 40 to 200 mm"):
            _as_k(one, OUTPUTS, 1000.0)


@pytest.mark.parametrize(("at", "is_taken"), [([50.0, 60.0], True), ([20.0, 50.0], True), ([51.0, 60.0], False),
                                              ([20.0, 49.0], False)])  # fmt: skip
def test_a_depth_curve_reaches_the_depth_of_the_output_factors(at: list[float], is_taken: bool) -> None:
    one = curve("tpr", 100.0, at, [2.0, 1.0])
    if is_taken:
        assert len(_as_k(one, OUTPUTS, 1000.0).k) == 2
    else:
        with pytest.raises(BadInput, match="a tpr of 100 mm that does not reach 50 mm"):
            _as_k(one, OUTPUTS, 1000.0)


@pytest.mark.parametrize(("sides", "is_enough"), [([40, 100, 200], True), ([40, 100], False), ([40, 60, 200], False),
                                                  ([40, 100, 100], False)])  # fmt: skip
def test_three_sides_are_wanted_100_mm_among_them(sides: list[float], is_enough: bool) -> None:
    tables = [_Table(float(side), np.ones(1), np.ones(1)) for side in sides]
    if is_enough:
        _refuse_few(tables)
    else:
        with pytest.raises(BadInput, match="wanted are three sides at least, 100 mm among them"):
            _refuse_few(tables)


def cells(side: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    edge = np.linspace(-side / 2, side / 2, n + 1)
    return edge, 0.5 * (edge[1:] + edge[:-1])


@pytest.mark.parametrize(("side", "n"), [(41.0, 16), (2.0, 2), (103.0, 42)])
def test_what_a_gaussian_gathers_is_a_sum_over_cells_of_two_and_a_half_mm(beam: Beam, side: float, n: int) -> None:
    edge, middle = cells(side, n)
    fluence = np.interp(np.hypot(middle[:, None], middle), [0, 60, 120], [1, 1.1, 0.9])
    x = np.array([-3.0, 0.0, 21.5])
    found = gathered(beam, side, x)
    for g, sigma in enumerate(beam.sigma_mm):
        across = 0.5 * np.diff(erf((edge - x[:, None]) / (np.sqrt(2) * sigma)), axis=1)
        along = 0.5 * np.diff(erf(edge / (np.sqrt(2) * sigma)))
        assert found[:, g] == pytest.approx(across @ fluence @ along)


def test_points_are_those_of_depths_and_of_profiles_within_them_each_with_its_weight() -> None:
    tables = [
        _Table(10.0, np.array([20.0, 100.0]), np.array([4.0, 2.0])),
        _Table(100.0, np.array([20.0, 80.0, 120.0, 210.0]), np.array([9.0, 6.0, 4.0, 1.0])),
    ]
    profiles = [
        curve("profile", 100.0, [0.0, 22.0], [1.0, 0.8], depth=100.0, ssd=1000.0),
        # No depth dose of that field, and deeper than its depth dose.
        curve("profile", 50.0, [0.0, 5.0], [1.0, 0.8], depth=100.0, ssd=1000.0),
        curve("profile", 10.0, [0.0, 5.0], [1.0, 0.8], depth=101.0, ssd=1000.0),
        curve("profile", 10.0, [0.0, 10.2], [1.0, 0.5], depth=20.0, ssd=1000.0),
    ]
    found = _points(tables, profiles, 1000.0)
    rows = np.stack([found.side_mm, found.depth_mm, found.x_mm, found.k, found.weight], axis=1)
    # K of the 100 mm field 100 mm deep is 5. Small fields weigh 0.15, depths beyond 200 mm 0.4, profiles a half.
    wanted = [
        [10, 20, 0, 0.8, 0.15], [10, 100, 0, 0.4, 0.15], [100, 20, 0, 1.8, 1], [100, 80, 0, 1.2, 1],
        [100, 120, 0, 0.8, 1], [100, 210, 0, 0.2, 0.4], [100, 100, 0, 1.0, 0.5], [100, 100, 20, 0.8, 0.5],
        [10, 20, 0, 0.8, 0.075], [10, 20, 10, 0.4, 0.075],
    ]  # fmt: skip
    assert rows == pytest.approx(np.array(wanted))
    edge = _points([_Table(15.0, np.array([200.0]), np.ones(1)), tables[1]], [], 1000.0)
    assert edge.weight.tolist() == [1.0, 1.0, 1.0, 1.0, 0.4]


def test_electrons_are_what_depth_doses_have_beyond_the_photons_between_2_and_15_mm(beam: Beam) -> None:
    amplitude = np.array([0.0, 0.02, 0.3, 0.1])
    depth = np.array([0.5, 1.9, 2.0, 4.0, 6.0, 9.0, 12.0, 15.0, 15.1, 60.0, 100.0, 140.0])
    tables = []
    for side in (40.0, 100.0, 200.0):
        field = gathered(beam, side, np.zeros(1))[0]
        photons = gaussian_depth_dose(beam, depth) @ field
        more = np.exp(-0.33 * depth) * (amplitude @ field)
        # What is beyond the range tells nothing, whatever it is.
        more = np.where((depth >= 2.0) & (depth <= 15.0), more, 0.0) + np.where(depth < 2.0, 5.0, 0.0)
        tables.append(_Table(side, depth, 3.0 * (photons + more)))
    # The scale is that of the 100 mm field 100 mm deep.
    reference = gaussian_depth_dose(beam, np.array([100.0]))[0] @ gathered(beam, 100.0, np.zeros(1))[0]
    scaled = [_Table(t.side_mm, t.depth_mm, t.k / reference) for t in tables]
    one = beam.model_copy(update={"amplitude": (np.array(beam.amplitude) / reference).tolist()})
    found = _fit_electrons(scaled, one)
    assert found is not None
    assert found.attenuation_per_mm == 0.33
    assert np.array(found.amplitude) == pytest.approx(amplitude / reference, abs=2e-3)
    late = [_Table(t.side_mm, t.depth_mm[6:], t.k[6:]) for t in scaled]
    assert _fit_electrons(late, one) is None
    nearly = [_Table(t.side_mm, t.depth_mm[5:], t.k[5:]) for t in scaled]
    assert _fit_electrons(nearly, one) is not None


def test_a_profile_of_the_model_is_told_in_the_curves_own_plane(beam: Beam) -> None:
    one = curve("profile", 80.0, [0.0], [1.0], ssd=900.0, depth=150.0)
    weight = gaussian_depth_dose(beam, np.array([150.0]))[0]
    x = np.array([10.0, 42.0])
    wanted = gathered(beam, 80.0, x / 1.05) @ weight / (gathered(beam, 80.0, np.zeros(1))[0] @ weight)
    assert profile_of(beam, one, 1000.0, x) == pytest.approx(wanted)


def test_the_fluence_takes_over_what_the_widest_profiles_have_more_in_their_flat_part(beam: Beam) -> None:
    at = np.arange(0.0, 120.0, 1.0)

    def more(side: float, slope: float, depth: float) -> Curve:
        one = curve("profile", side, at, np.ones(len(at)), ssd=1000.0, depth=depth)
        x = at / (1.0 + depth / 1000.0)
        # Beyond 80 % of the half side a profile tells nothing.
        value = profile_of(beam, one, 1000.0, at) * np.where(x <= 0.4 * side, 1.0 + slope * x, 7.0)
        return curve("profile", side, at, value, ssd=1000.0, depth=depth)

    found = _fit_fluence([more(100.0, 0.5, 100.0), more(200.0, 0.002, 100.0), more(200.0, 0.004, 50.0)], beam, 1000.0)
    # 60 mm off 1 + 0.003 · 60; at 120 mm the end of the flat part, 80 mm, holds: by the last point within it.
    ends = [1 + 0.002 * 88 / 1.1, 1 + 0.004 * 84 / 1.05]
    wanted = [1.0, 1.1 * 1.18, 0.9 * np.mean(ends)]
    assert found.fluence_relative == pytest.approx(wanted, rel=5e-3)
    assert found.fluence_distance_mm == [0.0, 60.0, 120.0]
    assert found.model_copy(update={"fluence_relative": beam.fluence_relative}) == beam


@pytest.mark.parametrize(("kind", "name"), [("depth_dose", "generic"), ("tpr", "generic"), ("tpr", "tissue")])
def test_a_depth_curve_is_judged_by_its_shape_in_percent_of_its_maximum(kind: str, name: str) -> None:
    model = load_machine(name)
    at = np.array([1.0, 2.0, 5.0, 9.0, 10.0, 20.0, 40.0, 100.0, 200.0])
    first = 4 if name == "generic" else 1
    shape = gaussian_depth_dose(model.beam, at) @ gathered(model.beam, 60.0, np.zeros(1))[0]
    shape *= (1000.0 / (900.0 + at)) ** 2 if kind == "depth_dose" else 1.0
    wave = 1.0 + 0.02 * (-1.0) ** np.arange(len(at))
    value = 37.0 * shape * wave
    value[:first] *= 3.0
    row = _judge(curve(kind, 60.0, at, value), model)
    kept, told = value[first:], shape[first:]
    off = 100.0 * (told * (told @ kept) / (told @ told) - kept) / kept.max()
    assert row == {
        "kind": kind, "side_mm": 60.0, "depth_mm": None, "source": "scan.csv", "points": len(at) - first,
        "worst_percent": round(float(np.abs(off).max()), 3), "rms_percent": round(float(np.sqrt(np.mean(off**2))), 3),
    }  # fmt: skip
    assert 0.5 < row["rms_percent"] < row["worst_percent"] < 4.0


def test_a_profile_is_judged_point_by_point_in_percent_of_its_maximum(machine: Machine) -> None:
    at = np.array([0.0, 20.0, 35.0, 60.0])
    one = curve("profile", 60.0, at, np.ones(4), ssd=950.0, depth=70.0)
    value = 2.0 * profile_of(machine.beam, one, 1000.0, at)
    value[1] += 0.1
    row = _judge(curve("profile", 60.0, at, value, ssd=950.0, depth=70.0), machine)
    off = 100.0 * (0.5 * (value - [0.0, 0.1, 0.0, 0.0]) - value) / value.max()
    assert row == {
        "kind": "profile", "side_mm": 60.0, "depth_mm": 70.0, "source": "scan.csv", "points": 4,
        "worst_percent": round(float(np.abs(off).max()), 3), "rms_percent": round(float(np.sqrt(np.mean(off**2))), 3),
    }  # fmt: skip


def test_a_machine_is_written_with_its_sources_and_eight_digits(machine: Machine) -> None:
    beam = machine.beam.model_copy(update={"attenuation_per_mm": 0.00412345678912})
    text = machine_as_yaml(machine.model_copy(update={"beam": beam}), {"a.csv": "12ab", "b.mcc": "34cd"})
    assert text.startswith(
        "# The beam was fitted by `doseledger machine fit` to\n#   a.csv (SHA256 12ab)\n#   b.mcc (SHA256 34cd)\n"
    )
    assert "attenuation_per_mm: 0.0041234568\n" in text
    assert "electrons" not in text
    assert "electrons:" in machine_as_yaml(load_machine("tissue"), {})


def points_of(beam: Beam, sides: tuple[float, ...] = (40.0, 100.0, 200.0)) -> _Points:
    """What a beam gives along the axis of three fields, and off it in one."""
    depth = np.arange(10.0, 300.0, 20.0)
    parts = [(side, depth, np.zeros(len(depth))) for side in sides]
    parts.append((100.0, np.full(12, 100.0), np.linspace(0.0, 66.0, 12)))
    side, at, x = (np.concatenate([np.broadcast_to(part[i], part[1].shape) for part in parts]) for i in range(3))
    k = np.empty(len(side))
    for one in np.unique(side):
        index = side == one
        k[index] = (gaussian_depth_dose(beam, at[index]) * gathered(beam, one, x[index])).sum(axis=1)
    return _Points(side, at, x, k, np.where(side == 40.0, 0.3, 1.0))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the search was asked for; it stays where it begins."""
    calls: list[Any] = []

    def stay(off: Any, start: np.ndarray, **words: Any) -> Any:
        calls.append((start, words, off(start)))
        return SimpleNamespace(x=start)

    monkeypatch.setattr(fit, "least_squares", stay)
    return calls


@pytest.mark.parametrize("widths_too", [True, False])
def test_amplitudes_follow_by_least_squares_from_attenuation_build_ups_and_widths(
    widths_too: bool, beam: Beam, asked: list[Any]
) -> None:
    points = points_of(beam)
    zeros = [[0.0] * 4] * 3
    found = _fit_points(points, beam.model_copy(update={"amplitude": zeros}), widths_too=widths_too)
    start, words, off = asked[0]
    first = 0 if widths_too else 1
    times = np.log([beam.sigma_mm[0], *np.divide(beam.sigma_mm[1:], beam.sigma_mm[:-1])])[first:]
    above = np.log(np.subtract(beam.buildup_per_mm, beam.attenuation_per_mm))
    assert start == pytest.approx([beam.attenuation_per_mm, *above, *times])
    low, high = words.pop("bounds")
    narrowest = [] if first else [(0.0, np.log(20.0))]
    ends = [(1e-4, 0.02), *[(np.log(5e-4), 0.0)] * 3, *narrowest, *[(np.log(1.3), np.log(20.0))] * 3]
    assert np.transpose([low, high]) == pytest.approx(np.array(ends))
    assert words == {"x_scale": "jac", "xtol": 1e-10, "ftol": 1e-10, "gtol": 1e-12, "max_nfev": 500}
    assert found.sigma_mm == pytest.approx(beam.sigma_mm)
    assert found.buildup_per_mm == pytest.approx(beam.buildup_per_mm)
    assert found.attenuation_per_mm == pytest.approx(beam.attenuation_per_mm)
    # The normal equations with their ridge, by a dense matrix.
    columns = []
    for b in beam.buildup_per_mm:
        mu = beam.attenuation_per_mm
        deep = b / (b - mu) * (np.exp(-mu * points.depth_mm) - np.exp(-b * points.depth_mm))
        share = np.stack(
            [gathered(beam, s, np.array([x]))[0] for s, x in zip(points.side_mm, points.x_mm, strict=True)]
        )
        columns.append(deep[:, None] * share)
    matrix = np.concatenate(columns, axis=1) * points.weight[:, None]
    stacked = np.concatenate([matrix, 2e-3 * np.eye(12)])
    wanted = np.linalg.lstsq(stacked, np.concatenate([points.k * points.weight, np.zeros(12)]), rcond=None)[0]
    assert np.ravel(found.amplitude) == pytest.approx(wanted, abs=1e-5)
    # What is made small: weighted differences, the ridge, and nothing for widths below 150 mm.
    assert off == pytest.approx([*(matrix @ wanted - points.k * points.weight), *(2e-3 * wanted), 0.0], abs=1e-6)


@pytest.mark.parametrize(("changes", "wanted"), [
    ({"sigma_mm": [0.9, 4.0, 20.0, 60.0]}, {"sigma_mm": [1.0, 4.0 / 0.9, 20.0 / 0.9, 60.0 / 0.9]}),
    ({"sigma_mm": [4.0, 5.0, 20.0, 60.0]}, {"sigma_mm": [4.0, 5.2, 20.8, 62.4]}),
    ({"sigma_mm": [2.0, 6.0, 20.0, 20.0]}, {"sigma_mm": [2.0, 6.0, 20.0, 26.0]}),
    ({"buildup_per_mm": [0.3, 0.05, 0.0042]}, {"buildup_per_mm": [0.3, 0.05, 0.0045]}),
    ({"buildup_per_mm": [0.3, 0.05, 0.002]}, {"buildup_per_mm": [0.3, 0.05, 0.0045]}),
    ({"buildup_per_mm": [40.0, 0.05, 0.02]}, {"buildup_per_mm": [1.004, 0.05, 0.02]}),
])  # fmt: skip
def test_a_search_begins_with_widths_apart_and_build_ups_above_the_attenuation(
    changes: dict[str, Any], wanted: dict[str, Any], beam: Beam, asked: list[Any]
) -> None:
    beam = beam.model_copy(update={"attenuation_per_mm": 0.004})
    found = _fit_points(points_of(beam), beam.model_copy(update=changes), widths_too=True)
    for name, values in wanted.items():
        assert getattr(found, name) == pytest.approx(values), name


def test_a_widest_gaussian_beyond_150_mm_is_drawn_back(beam: Beam, asked: list[Any]) -> None:
    for widest, wall in ((149.9, 0.0), (300.0, np.log(2.0))):
        wide = beam.model_copy(update={"sigma_mm": [2.0, 6.0, 20.0, widest]})
        _fit_points(points_of(beam), wide, widths_too=True)
        assert asked[-1][2][-1] == pytest.approx(wall)


def falling(ratio: float) -> _Table:
    """A depth dose that keeps this part of its K from 100 to 200 mm."""
    return _Table(100.0, np.array([10.0, 100.0, 150.0, 250.0]), np.array([1.4, 0.8, 0.8, 1.6 * ratio - 0.8]))


def reaching(first: float, last: float) -> _Table:
    return _Table(100.0, np.array([first, last]), np.array([1.0, 0.7]))


@pytest.mark.parametrize("reference", [falling(0.501), falling(0.899), reaching(100.0, 200.0)])
def test_a_depth_dose_that_falls_as_a_linacs_does_is_taken(reference: _Table) -> None:
    _refuse_no_linac(reference)


@pytest.mark.parametrize(("reference", "found"), [
    (falling(0.499), "keeps 50 %"), (falling(0.901), "keeps 90 %"), (falling(np.nan), "keeps nan %"),
    (reaching(100.1, 200.0), "goes from 100.1 to 200 mm"), (reaching(100.0, 199.9), "goes from 100 to 199.9 mm"),
    (reaching(10.0, 30.0), "goes from 10 to 30 mm"),
])  # fmt: skip
def test_a_depth_dose_that_does_not_reach_or_falls_as_no_linacs_is_refused(reference: _Table, found: str) -> None:
    with pytest.raises(BadInput) as refused:
        _refuse_no_linac(reference)
    rest = (
        " from 100 to 200 mm deep, inverse square aside; a linac's photons keep 50 to 90 %"
        if found.startswith("keeps")
        else "; wanted from 100 to 200 mm at least"
    )
    assert str(refused.value) == f"the depth dose of 100 mm {found}{rest}. Is it in mm?"


def test_a_fit_goes_three_rounds_with_profiles_and_one_without(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[Any] = []
    monkeypatch.setattr(fit, "_fit_points", lambda points, beam, widths_too: steps.append(widths_too) or beam)
    monkeypatch.setattr(fit, "_fit_fluence", lambda profiles, beam, sad: steps.append(len(profiles)) or beam)
    depth = np.arange(10.0, 300.0, 10.0)
    curves = [curve("tpr", side, depth, np.exp(-0.005 * depth)) for side in (40.0, 100.0, 200.0)]
    curves += [output(side, 1.0) for side in (40.0, 100.0, 200.0)]
    found = fit.fit_machine(curves, machine, name="New", gy_per_mu=0.009)
    assert steps == [False]
    assert (found.machine.name, found.machine.beam.follows_density) == ("New", True)
    assert found.machine.beam.reference_gy_per_mu == 0.009
    assert [row["side_mm"] for row in found.rows] == [40.0, 100.0, 200.0]
    steps.clear()
    profile = curve("profile", 100.0, [0.0, 20.0], [1.0, 1.0], ssd=900.0, depth=100.0)
    again = fit.fit_machine([*curves, profile], machine, name="New", gy_per_mu=None)
    assert steps == [True, 1, True, 1, True, 1, True]
    assert again.machine.beam.reference_gy_per_mu == machine.beam.reference_gy_per_mu

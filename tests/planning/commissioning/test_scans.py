"""Measured beam data read: every format gives the same curves, and odd files are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doseledger.core.errors import BadInput
from doseledger.planning.commissioning.scans import _curve, read_scans

DEPTHS = np.arange(0.0, 301.0, 25.0)
X = np.arange(-80.0, 80.1, 4.0)
PDD = 100.0 * np.exp(-0.005 * DEPTHS)
# The field lies 2 mm off, as a tank that is not quite centred has it.
PROFILE = 100.0 / (1.0 + np.exp((np.abs(X - 2.0) - 50.0) / 3.0))


def as_csv(comma: str = ".") -> str:
    rows = ["kind,side_mm,ssd_mm,depth_mm,x_mm,value", "# measured in March"]
    rows += [f"depth_dose,100,1000,{d},,{v}" for d, v in zip(DEPTHS, PDD, strict=True)]
    rows += [f"profile,100,1000,100,{x},{v}" for x, v in zip(X, PROFILE, strict=True)]
    return "\n".join(rows)


def as_mcc(comma: str = ".") -> str:
    def scan(number: int, curve: str, at: np.ndarray, values: np.ndarray, extra: str = "") -> str:
        points = "\n".join(f"\t\t\t{a:.2f}\t\t{v:.4E}\t\t#1.0" for a, v in zip(at, values, strict=True))
        head = f"MODALITY=X\n\t\tSSD=1000.00\n\t\tFIELD_INPLANE=100.00\n\t\tFIELD_CROSSPLANE=100.00\n{extra}"
        return (
            f"\tBEGIN_SCAN  {number}\n\t\t{head}\t\tSCAN_CURVETYPE={curve}\n"
            f"\t\tBEGIN_DATA\n{points}\n\t\tEND_DATA\n\tEND_SCAN  {number}\n"
        ).replace(".", comma)

    profile = scan(2, "CROSSPLANE_PROFILE", X, PROFILE, "\t\tSCAN_DEPTH=100.00\n")
    return "BEGIN_SCAN_DATA\n" + scan(1, "PDD", DEPTHS, PDD) + profile + "END_SCAN_DATA\n"


def as_rfa(comma: str = ".") -> str:
    def scan(points: list[tuple[float, float, float, float]]) -> str:
        rows = "\n".join("= \t" + "\t".join(f"{n:.4f}" for n in point) for point in points)
        return f"%VNR 1.0\n%BMT PHO\t6.0\n%FSZ 100\t100\n%SSD 1000\n{rows}\n:EOM  # End of Measurement\n".replace(
            ".", comma
        )

    depth = scan([(0.0, 0.0, d, v) for d, v in zip(DEPTHS, PDD, strict=True)])
    across = scan([(x, 0.0, 100.0, v) for x, v in zip(X, PROFILE, strict=True)])
    return ":MSR 2\n:SYS BDS 0\n" + depth + across + ":EOF\n"


def as_w2cad(comma: str = ".") -> str:
    def scan(points: list[tuple[float, float, float, float]]) -> str:
        rows = "\n".join("<" + " ".join(f"{n:+.4f}" for n in point) + ">" for point in points)
        return f"$STOM\n%VERSION 02\n%BMTY PHO\n%FLSZ 100*100\n%SSD 1000\n{rows}\n$ENOM\n".replace(".", comma)

    depth = scan([(0.0, 0.0, d, v) for d, v in zip(DEPTHS, PDD, strict=True)])
    across = scan([(x, 0.0, 100.0, v) for x, v in zip(X, PROFILE, strict=True)])
    return "$NUMS 002\n" + depth + across + "$ENOF\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("scan.csv", as_csv()),
        ("scan.mcc", as_mcc()),
        ("german.mcc", as_mcc(",")),
        ("rfa.asc", as_rfa()),
        ("german.asc", as_rfa(",")),
        ("w2cad.asc", as_w2cad()),
        ("windows.asc", as_w2cad().replace("\n", "\r\n")),
    ],
)
def test_every_format_gives_the_same_curves(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode())
    (depth, profile), left_out = read_scans([path])
    assert left_out == []
    assert (depth.kind, depth.side_mm, depth.ssd_mm) == ("depth_dose", 100.0, 1000.0)
    np.testing.assert_allclose(depth.at_mm, DEPTHS)
    np.testing.assert_allclose(depth.value, PDD, rtol=1e-3)
    assert (profile.kind, profile.depth_mm, profile.side_mm) == ("profile", 100.0, 100.0)
    # Both sides are averaged about the middle of the field, not of the tank.
    assert np.interp(50.0, profile.at_mm, profile.value) == pytest.approx(0.5, abs=0.02)
    assert profile.value[0] == 1.0


def test_what_is_no_open_square_photon_field_is_left_out_by_name(tmp_path: Path) -> None:
    text = as_mcc().replace("FIELD_INPLANE=100.00", "FIELD_INPLANE=200.00", 1)
    electrons = as_mcc().replace("MODALITY=X", "MODALITY=EL", 1)
    (tmp_path / "a.mcc").write_text(text, encoding="utf-8")
    (tmp_path / "b.mcc").write_text(electrons, encoding="utf-8")
    curves, left_out = read_scans([tmp_path / "a.mcc", tmp_path / "b.mcc"])
    assert [curve.kind for curve in curves] == ["profile", "profile"]
    assert left_out == [
        "a.mcc: depth_dose of 200 × 100 mm: no square field",
        "b.mcc: a scan of modality EL, no photons",
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("scan.txt", b"", r"scan\.txt: beam data are read of \.csv"),
        ("scan.csv", b"depth,dose\n1,2\n", "the first line must be kind,side_mm"),
        ("scan.csv", b"kind,side_mm,ssd_mm,depth_mm,x_mm,value\nwedge,1,1,1,1,1\n", "row 2 is a 'wedge'"),
        ("scan.csv", b"kind,side_mm,ssd_mm,depth_mm,x_mm,value\ntpr,100,,,,1\n", "row 2 lacks a number"),
        ("scan.csv", b"kind,side_mm,ssd_mm,depth_mm,x_mm,value\ntpr,100,,x,,1\n", "row 2: could not convert"),
        ("scan.csv", b"kind,side_mm,ssd_mm,depth_mm,x_mm,value\ntpr,100\n", "row 2"),
        ("scan.mcc", b"BEGIN_SCAN_DATA\nEND_SCAN_DATA\n", "no scan in it"),
        ("scan.mcc", as_mcc().replace("SSD=", "S=").encode(), "a scan without SSD"),
        ("scan.asc", as_rfa().replace("%FSZ", "%F").encode(), "without field size"),
        ("scan.asc", b"\xff\x00\x01", "no scan in it"),
    ],
)
def test_a_file_that_is_no_beam_data_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=message):
        read_scans([tmp_path / name])


def test_points_above_the_surface_are_not_taken_for_depths(tmp_path: Path) -> None:
    depths, values = [-20, -10, 0, 10, 20, 100], [1, 2, 30, 100, 95, 60]
    for sign in (1, -1):
        rows = [f"= 0 0 {sign * depth} {value}" for depth, value in zip(depths, values, strict=True)]
        (tmp_path / "scan.asc").write_text("\n".join(["%BMT PHO", "%FSZ 100 100", "%SSD 1000", *rows]))
        (curve,), _ = read_scans([tmp_path / "scan.asc"])
        np.testing.assert_array_equal(curve.at_mm, depths)
        np.testing.assert_array_equal(curve.value, values)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_half_a_profile_may_lie_on_either_side(tmp_path: Path, side: float) -> None:
    x = np.arange(0.0, 80.1, 4.0)
    rows = [f"profile,100,1000,100,{side * a},{100 / (1 + np.exp((a - 50) / 3))}" for a in x]
    (tmp_path / "half.csv").write_text("\n".join(["kind,side_mm,ssd_mm,depth_mm,x_mm,value", *rows]))
    (curve,), _ = read_scans([tmp_path / "half.csv"])
    np.testing.assert_array_equal(curve.at_mm, x)
    assert np.interp(50.0, curve.at_mm, curve.value) == pytest.approx(0.5, abs=0.02)


def test_a_profile_that_ends_within_the_field_is_left_out(tmp_path: Path) -> None:
    rows = [f"profile,100,1000,100,{a},{100 - abs(a) / 10}" for a in np.arange(-40.0, 41.0, 4.0)]
    (tmp_path / "cut.csv").write_text("\n".join(["kind,side_mm,ssd_mm,depth_mm,x_mm,value", *rows]))
    curves, left_out = read_scans([tmp_path / "cut.csv"])
    assert curves == []
    assert "it ends before half its height" in left_out[0]


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.csv: no such file"):
        read_scans([tmp_path / "none.csv"])


def measured(n: int, start: float = 0.0, end: float = 300.0) -> np.ndarray:
    at = np.linspace(start, end, n)
    return np.column_stack([at, np.exp(-0.005 * np.abs(at))])


@pytest.mark.parametrize(
    ("other_mm", "is_square"), [(100.0, True), (100.9, True), (101.1, False), (99.1, True), (98.9, False)]
)
def test_sides_differ_by_a_hundredth_at_most(other_mm: float, is_square: bool) -> None:
    found = _curve("depth_dose", (100.0, other_mm), 1000.0, 0.0, measured(9), "scan.csv")
    if not is_square:
        assert found == f"scan.csv: depth_dose of 100 × {other_mm:g} mm: no square field"
    else:
        assert found.side_mm == pytest.approx(50.0 + other_mm / 2)  # type: ignore[union-attr]


@pytest.mark.parametrize(("kind", "n", "is_read"), [
    ("depth_dose", 5, True), ("depth_dose", 4, False), ("output", 1, True), ("output", 0, False),
])  # fmt: skip
def test_a_curve_has_five_points_and_an_output_one(kind: Any, n: int, is_read: bool) -> None:
    found = _curve(kind, (100.0, 100.0), 1000.0, 0.0, measured(n), "scan.csv")
    assert isinstance(found, str) is not is_read
    if not is_read:
        assert found == f"scan.csv: {kind} of 100 × 100 mm: {n} points, or one that is no number"


@pytest.mark.parametrize(("value", "end"), [(np.nan, "9 points, or one that is no number"), (0.0, "no value above 0")])
def test_a_curve_of_no_number_or_of_nothing_is_left_out(value: float, end: str) -> None:
    points = measured(9)
    points[:, 1] = value
    assert (
        _curve("depth_dose", (50.0, 50.0), 1000.0, 0.0, points, "scan.csv")
        == f"scan.csv: depth_dose of 50 × 50 mm: {end}"
    )


@pytest.mark.parametrize(("start", "end", "n_out"), [(-100.0, 100.0, 21), (-24.0, 100.0, None), (-100.0, 24.0, None)])
def test_half_a_profile_is_taken_as_it_is_from_either_side(start: float, end: float, n_out: int | None) -> None:
    at = np.arange(start, end + 0.1, 4.0)
    profile = np.column_stack([at, 1.0 / (1.0 + np.exp((np.abs(at) - 50.0) / 3.0))])
    found: Any = _curve("profile", (100.0, 100.0), 1000.0, 100.0, profile, "scan.csv")
    assert (found.at_mm[0], found.value[0]) == (0.0, pytest.approx(1.0))
    assert found.at_mm[-1] == pytest.approx(100.0)
    assert np.interp(50.0, found.at_mm, found.value) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("end", "is_read"), [(60.0, True), (40.0, False)])
def test_a_profile_ends_beyond_half_its_height(end: float, is_read: bool) -> None:
    at = np.arange(-end, end + 0.1, 4.0)
    profile = np.column_stack([at, 1.0 / (1.0 + np.exp((np.abs(at) - 50.0) / 3.0))])
    found = _curve("profile", (100.0, 100.0), 1000.0, 100.0, profile, "scan.csv")
    assert isinstance(found, str) is not is_read
    if not is_read:
        assert str(found).endswith("it ends before half its height, so that nobody knows its middle")

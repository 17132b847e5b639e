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


def read(tmp_path: Path, name: str, lines: list[str]) -> tuple[list[list[Any]], list[str]]:
    """Each curve of a file as a list: kind, side, surface, depth, positions, values, source."""
    (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    curves, left_out = read_scans([tmp_path / name])
    rows = [
        [c.kind, c.side_mm, c.ssd_mm, c.depth_mm, c.at_mm.round(6).tolist(), c.value.round(6).tolist(), c.source]
        for c in curves
    ]
    return rows, left_out


NAN = pytest.approx(np.nan, nan_ok=True)


def test_rows_of_a_table_become_curves_by_field_surface_and_depth(tmp_path: Path) -> None:
    lines = [
        "kind, side_mm,ssd_mm,depth_mm,x_mm,value",
        "# no row",
        "",
        "output,40,950,50,,0.9",
        "output,60,950,50,,0.95",
    ]
    # Out of order, one depth twice: the first holds. What a kind does not need may be anything.
    lines += [f"tpr,100,{9 + d},{d},{d},{v}" for d, v in ((30, 7), (10, 9), (20, 8), (20, 99), (40, 6), (50, 5))]
    lines += [f" depth_dose ,100,1000,{d},,{200 - d}" for d in (0, 10, 20, 30, 40)]
    lines += [f"depth_dose,100,900,{d},,{100 - d}" for d in (0, 10, 20, 30, 40)]
    lines += [
        f"profile,100,1000,{depth},{x},{v}"
        for depth in (50, 100)
        for x, v in ((0, 4), (20, 4), (40, 3), (60, 1), (80, 0))
    ]
    rows, left_out = read(tmp_path, "a.csv", lines)
    assert left_out == []
    x, half = [0.0, 20.0, 40.0, 60.0, 80.0], [1.0, 1.0, 0.75, 0.25, 0.0]
    assert rows == [
        ["output", 40.0, 950.0, 50.0, [50.0], [0.9], "a.csv"],
        ["output", 60.0, 950.0, 50.0, [50.0], [0.95], "a.csv"],
        ["tpr", 100.0, NAN, NAN, [10.0, 20.0, 30.0, 40.0, 50.0], [9.0, 8.0, 7.0, 6.0, 5.0], "a.csv"],
        ["depth_dose", 100.0, 1000.0, NAN, [0.0, 10.0, 20.0, 30.0, 40.0], [200.0, 190.0, 180.0, 170.0, 160.0], "a.csv"],
        ["depth_dose", 100.0, 900.0, NAN, [0.0, 10.0, 20.0, 30.0, 40.0], [100.0, 90.0, 80.0, 70.0, 60.0], "a.csv"],
        ["profile", 100.0, 1000.0, 50.0, x, half, "a.csv"],
        ["profile", 100.0, 1000.0, 100.0, x, half, "a.csv"],
    ]


@pytest.mark.parametrize(("row", "is_read"), [
    ("depth_dose,100,,5,,1", False), ("depth_dose,100,1000,,,1", False), ("depth_dose,,1000,5,,1", False),
    ("depth_dose,100,1000,5,,", False), ("profile,100,1000,5,,1", False), ("profile,100,1000,,5,1", False),
    ("profile,100,,5,5,1", False), ("output,100,1000,,,1", False), ("output,100,,5,,1", False),
    ("output,100,1000,5,,1", True), ("output,100,1000,5,inf,1", True), ("output,inf,1000,5,,1", False),
])  # fmt: skip
def test_a_row_has_each_number_that_its_kind_needs(row: str, is_read: bool, tmp_path: Path) -> None:
    lines = ["kind,side_mm,ssd_mm,depth_mm,x_mm,value", row]
    if is_read:
        assert len(read(tmp_path, "a.csv", lines)[0]) == 1
    else:
        with pytest.raises(BadInput, match=f"row 2 lacks a number that a {row.partition(',')[0]} needs"):
            read(tmp_path, "a.csv", lines)


def mcc(head: list[str], points: list[str]) -> list[str]:
    return ["BEGIN_SCAN  7", *head, "BEGIN_DATA", *points, "END_DATA", "noise 5 5", "END_SCAN  7"]


def test_scans_of_mephysto_are_told_apart_by_their_header(tmp_path: Path) -> None:
    points = [f"{d} {100 - d} 3 #" for d in (0, 10, 20, 30, 40)]
    head = ["SSD=900", "FIELD_INPLANE=100.00", "FIELD_CROSSPLANE=100.4", "SCAN_DEPTH=55"]
    lines = [
        *mcc([*head, "MODALITY=xfff", "SCAN_CURVETYPE=PDD"], points),
        *mcc([*head, "SCAN_CURVETYPE=INPLANE_PROFILE"], points),
        *mcc([*head, "SCAN_CURVETYPE=STARCHECK"], points),
        *mcc(head, points),
        *mcc([*head, "SCAN_CURVETYPE=PDD"], ["nothing", "5"]),
        *mcc([*head, "MODALITY=EL", "SCAN_CURVETYPE=PDD"], points),
        *mcc([*head, "SCAN_CURVETYPE=PDD"], points[:4]),
    ]
    rows, left_out = read(tmp_path, "b.mcc", lines)
    at = [0.0, 10.0, 20.0, 30.0, 40.0]
    assert rows == [
        ["depth_dose", 100.2, 900.0, NAN, at, [100.0, 90.0, 80.0, 70.0, 60.0], "b.mcc"],
        ["profile", 100.2, 900.0, 55.0, at, [1.0, 0.9, 0.8, 0.7, 0.6], "b.mcc"],
    ]
    assert left_out == [
        "b.mcc: a scan of type STARCHECK, or without a point", "b.mcc: a scan of type unknown, or without a point",
        "b.mcc: a scan of type PDD, or without a point", "b.mcc: a scan of modality EL, no photons",
        "b.mcc: depth_dose of 100 × 100.4 mm: 4 points, or one that is no number",
    ]  # fmt: skip


def test_scans_of_an_asc_lie_along_one_axis_whichever_it_is(tmp_path: Path) -> None:
    def scan(points: list[tuple[float, ...]], **head: str) -> list[str]:
        said = {"BMT": "PHO 6.0", "FSZ": "80 80", "SSD": "950 # mm", **head}
        return [*(f"%{k} {v}" for k, v in said.items() if v), *("= " + " ".join(map(str, p)) for p in points), ":EOM"]

    steps = (0, 10, 20, 30, 40)
    lines = [
        *scan([(0.3, y, -70, 50 - y) for y in steps]),
        *scan([(x, 0.5, 70, 50 - x) for x in steps]),
        *scan([(1, 2, -d, 50 - d) for d in steps]),
        *scan([(x, 0.1 * x, 70, 50 - x) for x in steps]),
        *scan([(x, 0, 70 + 0.0125 * x, 50 - x) for x in steps], BMT=""),
        *scan([(x, 0, 70, 1) for x in steps], BMT="ELE 9"),
        *scan([(x, 0, 70, 1) for x in steps], BMT="", BMTY="ELE"),
        "= 1 2 3", ":EOM",
    ]  # fmt: skip
    rows, left_out = read(tmp_path, "c.asc", lines)
    at, half = [0.0, 10.0, 20.0, 30.0, 40.0], [1.0, 0.8, 0.6, 0.4, 0.2]
    assert rows == [
        ["profile", 80.0, 950.0, 70.0, at, half, "c.asc"],
        ["profile", 80.0, 950.0, 70.0, at, half, "c.asc"],
        ["depth_dose", 80.0, 950.0, NAN, at, [50.0, 40.0, 30.0, 20.0, 10.0], "c.asc"],
        ["profile", 80.0, 950.0, 70.0, at, half, "c.asc"],
    ]
    assert left_out == [
        "c.asc: a scan along no axis", "c.asc: a scan of ELE 9, no photons", "c.asc: a scan of ELE, no photons",
    ]  # fmt: skip
    with pytest.raises(BadInput, match=r"c\.asc: a scan without field size"):
        read(tmp_path, "c.asc", scan([(0, 0, d, 9) for d in steps], FSZ="80"))
    with pytest.raises(BadInput, match=r"c\.asc: a scan without SSD"):
        read(tmp_path, "c.asc", scan([(0, 0, d, 9) for d in steps], SSD=""))


def test_a_profile_is_folded_about_the_middle_of_its_half_height() -> None:
    # Half of 8 lies at -38 and at 44: the middle at 3. Nine points, so five on a side, up to the nearer end, 53 mm.
    points = np.array([[-50.0, 2], [-46, 2], [-40, 3], [-36, 5], [0, 8], [40, 5], [48, 3], [60, 1], [70, 0]])
    found: Any = _curve("profile", (100.0, 100.0), 1000.0, 50.0, points, "a")
    assert found.at_mm == pytest.approx([0.0, 13.25, 26.5, 39.75, 53.0])
    at, value = points.T
    both = [0.5 * (np.interp(3 + x, at, value) + np.interp(3 - x, at, value)) for x in found.at_mm]
    assert found.value == pytest.approx(np.array(both) / both[0])
    mirrored: Any = _curve("profile", (100.0, 100.0), 1000.0, 50.0, points * [-1, 1], "a")
    assert mirrored.at_mm == pytest.approx(found.at_mm)
    assert mirrored.value == pytest.approx(found.value)


@pytest.mark.parametrize(("end", "is_half"), [(24.9, True), (25.1, False)])
def test_half_a_profile_reaches_less_than_a_quarter_over_the_axis(end: float, is_half: bool) -> None:
    at = np.array([-end, -10.0, 0.0, 10.0, 50.0, 100.0])
    value = np.array([4.0, 9.0, 8.0, 8.0, 4.0, 0.0])
    for sign in (1.0, -1.0):
        found: Any = _curve("profile", (100.0, 100.0), 1000.0, 50.0, np.stack([sign * at, value], axis=1), "a")
        if is_half:
            assert found.at_mm.tolist() == [0.0, 10.0, 50.0, 100.0]
            assert found.value.tolist() == [1.0, 1.0, 0.5, 0.0]
        else:
            assert found.at_mm[-1] < 60.0


@pytest.mark.parametrize(("end_value", "is_read"), [(4.9, True), (5.0, False), (5.1, False)])
@pytest.mark.parametrize("end", [0, -1])
def test_a_whole_profile_ends_below_half_its_height_on_both_sides(end: int, end_value: float, is_read: bool) -> None:
    value = np.array([1.0, 8.0, 10.0, 10.0, 8.0, 1.0])
    value[end] = end_value
    points = np.stack([np.array([-60.0, -45.0, -20.0, 20.0, 45.0, 60.0]), value], axis=1)
    assert isinstance(_curve("profile", (100.0, 100.0), 1000.0, 50.0, points, "a"), str) is not is_read


def test_files_are_read_one_after_another_and_one_of_64_mb_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "one.CSV").write_text(as_csv(), encoding="utf-8")
    (tmp_path / "two.mcc").write_text(as_mcc(), encoding="utf-8")
    curves, _ = read_scans([tmp_path / "one.CSV", tmp_path / "two.mcc"])
    assert [c.source for c in curves] == ["one.CSV", "one.CSV", "two.mcc", "two.mcc"]
    for size, is_large in ((2**26, False), (2**26 + 1, True)):
        with (tmp_path / "large.asc").open("wb") as stream:
            stream.truncate(size)
        words = f"{size} bytes are no table of beam data" if is_large else "no scan in it"
        with pytest.raises(BadInput, match=words):
            read_scans([tmp_path / "large.asc"])

"""A contract, two small data sets and all that is said of them, written out; numbers that a contract may hold."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doseledger.core.case import write_npz
from doseledger.core.errors import BadInput
from doseledger.core.files import write_json
from doseledger.parity.check import check_data_set
from doseledger.parity.compare import compare_sets
from doseledger.parity.contract import Contract, load_contract
from doseledger.parity.differences import compare_values, shifts
from doseledger.parity.similarity import compare_images, compare_stacks
from doseledger.parity.statistics import describe, normalised, pooled

ARRAYS: dict[str, dict[str, Any]] = {
    "v": {"describes": "values", "kinds": ["real"], "axes": ["n"], "normalise": {"by": "largest"},
          "groups": {"labels": "label"}},
    "label": {"describes": "labels", "dtypes": ["int32", "int64"], "axes": ["n"]},
    "m": {"describes": "a map", "kinds": ["real"], "axes": ["y", "x"], "required": False,
          "groups": {"axis": "x", "names": "who"}},
    "masks": {"describes": "masks", "kinds": ["boolean"], "axes": ["k", "y", "x"], "required": False},
    "inside": {"describes": "a map", "kinds": ["real"], "axes": ["y", "x"], "required": False,
               "groups": {"masks": "masks", "names": "who"}},
    "who": {"describes": "names", "kinds": ["text"], "axes": ["k"], "required": False},
    "z": {"describes": "complex", "kinds": ["complex"], "axes": ["n"], "required": False, "max": 5.0,
          "normalise": {"by": "constant", "divisor": 2.0}},
}  # fmt: skip


def contract(path: Path, arrays: dict[str, Any] | None = None, **more: Any) -> Contract:
    value = {"name": "toy", "title": "t", "source": "s", "files": {"pattern": r".*\.npz"}, "arrays": arrays or ARRAYS}
    write_json(path / "toy.yaml", value | more)
    return load_contract(path / "toy.yaml")


def write_set(folder: Path, **files: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    for name, arrays in files.items():
        write_npz(folder / f"{name}.npz", {key: np.asarray(array) for key, array in arrays.items()})
    return folder


def test_two_sets_are_compared_file_by_file_and_array_by_array(tmp_path: Path) -> None:
    label = np.array([1, 1, 2])
    a = write_set(
        tmp_path / "a",
        one={"v": [1.0, 3.0, -4.0], "label": label, "who": ["p", "q"]},
        two={"v": [2.0, 2.0, 2.0], "label": label},
    )
    b = write_set(
        tmp_path / "b", one={"v": [1.0, 3.0, -2.0], "label": label, "who": ["p", "r"]}, three={"v": [0.0], "label": [7]}
    )
    told: list[str] = []
    found = compare_sets((a, b), contract(tmp_path), limit=None, scenario="S", tell=told.append)
    assert (found.contract, found.scenario, found.names, found.n_files, found.n_compared) == (
        "toy",
        "S",
        ("a", "b"),
        3,
        3,
    )
    assert found.unpaired == ["three.npz: only in b", "two.npz: only in a"]
    rows = {
        (row["side"], row["file"], row["array"], row["part"], row["stage"], row["group"]): row
        for row in found.statistics
    }
    v = [key[2:] for key in rows if key[:2] == ("a", "one.npz") and key[2] == "v"]
    assert v == [
        ("v", "value", "raw", ""),
        ("v", "value", "normalised", ""),
        ("v", "value", "grouped", "1"),
        ("v", "value", "grouped", "2"),
    ]
    raw, normal = (rows["a", "one.npz", "v", "value", stage, ""] for stage in ("raw", "normalised"))
    assert (raw["n"], raw["least"], raw["largest"], raw["mean"]) == (3, -4.0, 3.0, 0.0)
    assert (normal["least"], normal["largest"]) == (-1.0, 0.75)
    assert rows["a", "one.npz", "v", "value", "grouped", "1"]["mean"] == 2.0
    assert rows["a", "one.npz", "v", "value", "grouped", "2"]["n"] == 1
    whole = rows["a", "(all files)", "v", "value", "raw", ""]
    assert (whole["n"], whole["mean"], whole["least"], whole["largest"]) == (6, 1.0, -4.0, 3.0)
    assert rows["b", "three.npz", "label", "value", "raw", ""]["mean"] == 7.0
    pairs = {row["array"]: row for row in found.pairs}
    assert list(pairs) == ["label", "v", "who"]
    assert pairs["who"] == {"file": "one.npz", "array": "who", "part": "text", "equal": False}
    assert (pairs["label"]["equal"], pairs["label"]["largest_difference"]) == (True, 0.0)
    assert (pairs["v"]["equal"], pairs["v"]["largest_difference"], pairs["v"]["n_one_sided"]) == (False, 2.0, 0)
    assert pairs["v"]["mean_difference"] == pytest.approx(2 / 3)
    assert found.as_dict()["b"] == "b"
    assert list(found.as_dict()) == [
        "contract",
        "scenario",
        "a",
        "b",
        "n_files",
        "n_compared",
        "unpaired",
        "pairs",
        "statistics",
    ]
    some = compare_sets((a, b), contract(tmp_path), limit=1, scenario="S", tell=told.append)
    assert (some.n_files, some.n_compared, [row["file"] for row in some.pairs]) == (3, 1, ["one.npz"] * 3)


def test_groups_are_an_axis_or_masks_by_name_or_by_number(tmp_path: Path) -> None:
    m = np.arange(6.0).reshape(2, 3)
    masks = np.zeros((3, 2, 3), bool)
    masks[0, 0], masks[2, 1, 2] = True, True
    plain = {"v": [1.0], "label": [1], "m": m, "inside": m, "masks": masks}
    a = write_set(tmp_path / "a", one=plain, two={**plain, "who": ["p", "q", "r"]})
    found = compare_sets((a, a), contract(tmp_path), limit=None, scenario="", tell=print)

    def groups(file: str, array: str) -> dict[str, float]:
        rows = [
            row
            for row in found.statistics
            if (row["side"], row["file"], row["array"], row["stage"]) == ("b", file, array, "grouped")
        ]
        return {row["group"]: row["mean"] for row in rows}

    assert groups("one.npz", "m") == {"0": 1.5, "1": 2.5, "2": 3.5}
    assert groups("two.npz", "m") == {"p": 1.5, "q": 2.5, "r": 3.5}
    assert groups("one.npz", "inside") == {"0": 1.0, "2": 5.0}
    assert groups("two.npz", "inside") == {"p": 1.0, "r": 5.0}
    bad = write_set(tmp_path / "bad", one={**plain, "masks": masks[:, :1]})
    with pytest.raises(BadInput, match=r"one\.npz: masks is \(3, 1, 3\), which does not fit \(2, 3\)"):
        compare_sets((bad, bad), contract(tmp_path), limit=None, scenario="", tell=print)


def test_complex_values_are_compared_by_magnitude_and_nearest_phase(tmp_path: Path) -> None:
    z = np.exp(1j * np.array([3.1, 0.5])) * [2.0, 4.0]
    turned = np.exp(1j * np.array([-3.1, 0.5])) * [2.0, 4.0]
    a = write_set(tmp_path / "a", one={"v": [1.0, 1.0], "label": [1, 1], "z": z})
    b = write_set(tmp_path / "b", one={"v": [1.0, 1.0], "label": [1, 1], "z": turned})
    found = compare_sets((a, b), contract(tmp_path), limit=None, scenario="", tell=print)
    pairs = {row["part"]: row for row in found.pairs if row["array"] == "z"}
    assert pairs["magnitude"]["largest_difference"] == pytest.approx(0.0, abs=1e-12)
    assert pairs["phase"]["largest_difference"] == pytest.approx(2 * math.pi - 6.2)
    stages = [
        (row["part"], row["stage"])
        for row in found.statistics
        if row["array"] == "z" and row["side"] == "a" and row["file"] == "one.npz"
    ]
    assert stages == [("magnitude", "raw"), ("magnitude", "normalised"), ("phase", "raw")]


def test_a_text_on_one_side_and_another_shape_do_not_pair(tmp_path: Path) -> None:
    a = write_set(tmp_path / "a", one={"v": [1.0, 2.0], "label": [1, 1], "who": ["p"]})
    b = write_set(tmp_path / "b", one={"v": [1.0], "label": [1], "who": [1.0]})
    found = compare_sets((a, b), contract(tmp_path), limit=None, scenario="", tell=print)
    assert found.pairs == []
    assert found.unpaired == [
        "one.npz: label is int64 (2,) in a, int64 (1,) in b", "one.npz: v is float64 (2,) in a, float64 (1,) in b",
        "one.npz: who is <U1 (1,) in a, float64 (1,) in b",
    ]  # fmt: skip


# --- a set against its contract -----------------------------------------------------------------------------------


def test_what_breaks_a_contract_is_listed_in_the_order_of_the_files(tmp_path: Path) -> None:
    folder = write_set(
        tmp_path / "set", a1={"v": [1.0], "label": np.array([1], np.int16), "new": [0]}, b={"v": [1.0], "label": [1]},
        a2={"v": [1.0, 2.0], "label": [1, 2], "z": [3 + 4j, 0], "m": [[1.0]]},
        a3={"v": [1.0], "label": [1], "z": [3 + 4.1j], "m": [1.0]},
    )  # fmt: skip
    rules = contract(
        tmp_path,
        files={"pattern": r"a\d\.npz", "at_least": 4, "required": ["a1.npz", "a9.npz"]},
        same_in_all_files=["n"],
        sizes={"y": 1},
    )
    found = check_data_set(folder, rules)
    assert found.findings == [
        "b.npz: not a file of the contract toy (pattern a\\d\\.npz); rename it or move it elsewhere",
        "a9.npz: the contract toy asks for this file", "3 files match a\\d\\.npz, wanted at least 4",
        "axis n must have one size in all files, found 1 in a1.npz (label), 2 in a2.npz (label)",
    ]  # fmt: skip
    assert found.lines[4:] == [
        "a1.npz: label: is int16, wanted int32 or int64", "a1.npz: new: the contract toy knows no such array",
        "a3.npz: z: the largest value is 5.08035, wanted at most 5", "a3.npz: m: has the shape (1,), wanted (y, x)",
    ]  # fmt: skip
    allowed = contract(tmp_path, other_arrays="allow", files={"pattern": r"a1\.npz", "at_least": 1})
    assert [line for line in check_data_set(folder, allowed).lines if "new" in line] == []


def test_a_fixed_size_and_an_array_that_is_missing_are_told(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", a={"label": [1, 2]}, b={"v": [], "label": np.zeros(0, int)})
    lines = check_data_set(folder, contract(tmp_path, sizes={"n": 3})).lines
    assert lines[:2] == [
        "a.npz: no array v, which the contract toy requires; there are label",
        "a.npz: label: has 2 along n, but the contract has 3",
    ]
    none = {"v": ARRAYS["v"] | {"min": 0.0, "groups": None}, "label": ARRAYS["label"]}
    assert (
        check_data_set(folder, contract(tmp_path, none)).lines[-1]
        == "b.npz: v: holds no finite value, so its range can't be judged"
    )


RULES = {"describes": "x", "kinds": ["real"], "axes": ["n", "y", "x"]}


def one(**more: Any) -> dict[str, Any]:
    """A contract of one array with these rules."""
    return {"arrays": {"v": RULES | more}}


def flagged(of: list[str], **missing: Any) -> dict[str, Any]:
    """A contract of an array whose missing slices are flagged by another of some axes."""
    flags = RULES | {"kinds": ["boolean"], "axes": of}
    return {"arrays": {"v": RULES | {"missing": {"flags": "f", "flag_axes": ["n"]} | missing}, "f": flags}}


@pytest.mark.parametrize(
    ("change", "is_taken"),
    [
        (one(image=["y", "x"]), True), (one(image=["n", "y", "x"]), True), (one(image=["x"]), False),
        (one(axes=["m", "n", "y", "x"], image=["m", "n", "y", "x"]), False), (one(kinds=[]), False),
        (one(kinds=None, dtypes=[]), False), (one(kinds=None, dtypes=["float32"]), True), (one(kinds=None), False),
        ({"sizes": {"n": 1}}, True), ({"sizes": {"n": 0}}, False), ({"files": {"pattern": ".*", "at_least": 1}}, True),
        ({"files": {"pattern": ".*", "at_least": 0}}, False), ({"name": "Toy"}, False),
        ({"other_arrays": "keep"}, False),
        (one(normalise={"by": "constant", "divisor": 0.1}), True), (one(min=2.0, max=2.0), True),
        (one(normalise={"by": "constant", "divisor": 0.0}), False), (one(groups={"axis": "y"}), True),
        (one(normalise={"by": "rms", "divisor": 2.0}), False), (one(groups={"axis": "y", "labels": "v"}), False),
        (flagged(["n"]), True), (flagged(["n"], flag_axes=[]), False), (flagged(["n"], min_present=0), True),
        (flagged(["n"], min_present=-1), False), (flagged(["y"]), False),
        ({"parity": [{"array": "", "measure": "ssim", "operator": ">=", "limit": 1, "source": "s"}]}, False),
    ],
)  # fmt: skip
def test_a_contract_holds_what_makes_sense_and_no_more(change: dict[str, Any], is_taken: bool, tmp_path: Path) -> None:
    arrays = change.get("arrays", {"v": RULES})
    rest = {key: value for key, value in change.items() if key != "arrays"}
    if is_taken:
        assert set(contract(tmp_path, arrays, **rest).arrays) == set(arrays)
    else:
        with pytest.raises(BadInput):
            contract(tmp_path, arrays, **rest)


# --- numbers ------------------------------------------------------------------------------------------------------


def test_differences_of_two_arrays_are_written_out() -> None:
    one, two = np.array([1.0, 3.0, np.nan, 5.0]), np.array([2.0, 3.0, 4.0, np.inf])
    found = compare_values(one, two, (describe(one), describe(two)))
    assert (found.equal, found.largest_difference, found.mean_difference, found.n_one_sided) == (False, 1.0, 0.5, 2)
    assert found.rms_difference == pytest.approx(math.sqrt(0.5))
    # Means 3 and 3; standard deviations 1.633 and 0.816.
    assert (found.mean_shift_percent, found.std_shift_percent) == (0.0, pytest.approx(50.0))
    assert found.percentile_shift == pytest.approx(1.0, abs=0.01)
    nothing = compare_values(
        np.array([np.nan]), np.array([1.0]), (describe(np.array([np.nan])), describe(np.array([1.0])))
    )
    assert math.isnan(nothing.largest_difference)
    assert math.isnan(nothing.rms_difference)
    moved = shifts(describe(np.array([-4.0, -4.0])), describe(np.array([-3.0, -3.0])))
    assert (moved["mean_shift_percent"], moved["std_shift_percent"], moved["percentile_shift"]) == (25.0, 0.0, 1.0)


def test_a_scale_of_nothing_is_none_and_zeros_are_lost_where_a_mean_is_taken_off() -> None:
    flat = describe(np.zeros(4))
    assert math.isnan(normalised(flat, "largest", None).mean)
    assert math.isnan(normalised(describe(np.ones(3)), "standard", None).least)
    values = describe(np.array([0.0, 0.0, 3.0, -6.0]))
    assert normalised(values, "largest", None).n_zero == 2
    assert normalised(values, "standard", None).n_zero is None
    assert (normalised(values, "largest", None).least, normalised(values, "constant", 3.0).largest) == (-1.0, 1.0)
    mixed = pooled([values, normalised(values, "standard", None)])
    assert (mixed.n_zero, mixed.n) == (None, 8)
    empty = pooled([describe(np.array([np.nan, np.inf]))])
    assert (empty.n, empty.n_nan, empty.n_infinite, empty.n_zero) == (2, 1, 1, 0)
    assert all(math.isnan(value) for value in (empty.mean, empty.std, empty.rms, empty.least, empty.largest))
    parts = [describe(np.array([1.0, 3.0])), describe(np.array([np.nan])), describe(np.array([0.0, 8.0, 0.0, -np.inf]))]
    whole = pooled(parts)
    assert (whole.n, whole.n_nan, whole.n_infinite, whole.n_zero, whole.least, whole.largest) == (7, 1, 1, 2, 0.0, 8.0)
    assert (whole.mean, whole.rms) == pytest.approx((12 / 5, math.sqrt(74 / 5)))
    assert whole.std == pytest.approx(np.std([1, 3, 0, 8, 0]))


def test_stacks_are_summed_up_by_their_worst_and_their_mean() -> None:
    rng = np.random.default_rng(2)
    stack = rng.normal(size=(4, 24, 24))
    other = stack + np.array([0.0, 0.1, 0.5, 0.2])[:, None, None] * rng.normal(size=(4, 24, 24))
    other[3, 0, 0] = np.nan
    found = compare_stacks(stack.reshape(2, 2, 24, 24), other.reshape(2, 2, 24, 24), 2)
    alone = [compare_images(stack[k], other[k], float(np.ptp(stack))) for k in range(3)]
    assert (found.n_images, found.n_images_missing, found.n_images_one_sided, found.scales) == (3, 0, 1, 2)
    assert (found.psnr_db, found.ssim, found.ms_ssim) == (alone[2].psnr_db, alone[2].ssim, alone[2].ms_ssim)
    assert found.ssim_mean == pytest.approx(np.mean([one.ssim for one in alone]))
    assert found.ms_ssim_mean == pytest.approx(np.mean([one.ms_ssim for one in alone]))
    assert (alone[0].psnr_db, alone[0].scales) == (math.inf, 5)
    volume = compare_stacks(stack, stack + 0.1, 3)
    assert (volume.n_images, volume.psnr_db) == (1, pytest.approx(20 * math.log10(np.ptp(stack) / 0.1)))
    assert [compare_images(stack[0, :n, :n], other[1, :n, :n], 1.0).scales for n in (10, 11, 21, 22, 24)] == [
        0,
        1,
        1,
        2,
        2,
    ]
    small = compare_stacks(stack[:2, :8, :8], other[:2, :8, :8], 2)
    assert math.isnan(small.ssim)
    assert math.isfinite(small.psnr_db)


def test_a_value_that_is_not_finite_on_either_side_is_refused() -> None:
    hole = np.zeros((12, 12))
    hole[3, 4] = np.nan
    for pair in ((hole, np.zeros((12, 12))), (np.zeros((12, 12)), hole)):
        with pytest.raises(BadInput, match="NaN or infinite"):
            compare_images(*pair, 1.0)

"""Each limit of learning: just inside passes, just outside is refused; numbers written out."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from doseledger.core.case import Case
from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file
from doseledger.core.physics import as_steps
from doseledger.learn.data import fingerprint as fingerprint_module
from doseledger.learn.data.fingerprint import fingerprint
from doseledger.learn.data.inputs import CaseFile, open_case
from doseledger.learn.data.patches import thinned
from doseledger.learn.networks.schedule import alpha_sigma, embed_time, eps_of_x0, sampling_angles
from doseledger.learn.training import archive
from doseledger.learn.training.archive import digest_of, read_archive
from doseledger.learn.training.average import _moving_average
from doseledger.learn.training.finite import skip_infinite_step
from doseledger.learn.training.memory import what_to_lower
from doseledger.learn.training.optimiser import plateau_share
from doseledger.learn.watch import heartbeat


@pytest.mark.parametrize(("n_bytes", "is_opened"), [(17_179_869_184, True), (17_179_869_185, False)])
def test_a_checkpoint_of_more_than_16_gib_is_not_opened(n_bytes: int, is_opened: bool, tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    with path.open("wb") as stream:
        stream.truncate(n_bytes)
    words = "not a zip file" if is_opened else "17179869185 bytes, wanted at most 17179869184"
    with pytest.raises(zipfile.BadZipFile if is_opened else BadInput, match=words):
        read_archive(path)


@pytest.mark.parametrize(("n_bytes", "is_read"), [(67_108_864, True), (67_108_865, False)])
def test_a_record_of_more_than_64_mib_is_not_read(
    n_bytes: int, is_read: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "best.ckpt"
    with zipfile.ZipFile(path, "w") as content:
        content.writestr("best/data.pkl", b"cos\nsystem\n.")
    claimed = zipfile.ZipInfo("best/data.pkl")
    claimed.file_size = n_bytes
    monkeypatch.setattr(archive, "_refuse_packed", lambda path, members: None)
    monkeypatch.setattr(zipfile.ZipFile, "infolist", lambda self: [claimed])
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda self, info: b"cos\nsystem\n.")
    with pytest.raises(BadInput, match="names 'os system'" if is_read else "one record of at most 67108864 bytes"):
        read_archive(path)


@pytest.mark.parametrize(("n", "is_taken"), [(1_000_000, True), (1_000_001, False)])
def test_a_checkpoint_stands_for_a_million_values(n: int, is_taken: bool) -> None:
    if is_taken:
        assert len(digest_of([0] * n)) == 64
        return
    with pytest.raises(BadInput, match="best: stands for more than 1000000 values"):
        digest_of([0] * n, "best")


@pytest.mark.parametrize(("n_before", "is_left_out"), [(0, True), (9, True), (10, False)])
def test_ten_steps_of_a_training_may_be_left_out(n_before: int, is_left_out: bool) -> None:
    network, skipped = nn.Linear(1, 1), torch.tensor(n_before)
    network(torch.tensor([[math.inf]])).sum().backward()
    if is_left_out:
        skip_infinite_step(network, skipped, ["case_0001"], epoch=3)
        assert [weight.grad for weight in network.parameters()] == [None, None]
        assert int(skipped) == n_before + 1
        return
    with pytest.raises(BadInput, match="not finite for the 11th time, in epoch 3, on case_0001, case_0002"):
        skip_infinite_step(network, skipped, ["case_0001", "case_0002"], epoch=3)


def test_a_step_with_finite_gradients_is_made_and_not_counted() -> None:
    network, skipped = nn.Linear(1, 1), torch.tensor(4)
    network(torch.tensor([[2.0]])).sum().backward()
    skip_infinite_step(network, skipped, ["case_0001"], epoch=3)
    assert [float(weight.grad.sum()) for weight in network.parameters() if weight.grad is not None] == [2.0, 1.0]
    assert int(skipped) == 4


@pytest.mark.parametrize(("gain", "share"), [(0.9e-4, 0.5), (1.1e-4, 1.0)])
def test_less_than_a_ten_thousandth_is_no_improvement(gain: float, share: float) -> None:
    recipe: Any = SimpleNamespace(plateau_epochs=1, plateau_factor=0.5)
    assert plateau_share([2.0, 2.0, 2.0 * (1 - gain)], recipe) == share


@pytest.mark.parametrize(("scores", "share"), [
    ([3.0, 3.0, 3.0], 1.0), ([3.0, 3.0, 3.0, 3.0], 0.1), ([3.0, 3.0, 3.0, 2.0, 2.5, 2.5], 1.0),
    ([3.0] * 6, 0.1), ([3.0] * 7, 0.01), ([], 1.0),
])  # fmt: skip
def test_a_rate_falls_after_more_than_so_many_epochs_without_a_better_one(scores: list[float], share: float) -> None:
    recipe: Any = SimpleNamespace(plateau_epochs=2, plateau_factor=0.1)
    assert plateau_share(scores, recipe) == pytest.approx(share)


@pytest.mark.parametrize(("n", "decay", "kept"), [
    (1, 0.999, 2 / 11), (8, 0.999, 0.5), (98, 0.999, 99 / 108), (98, 0.9, 0.9), (1_000_000, 0.999, 0.999),
])  # fmt: skip
def test_an_average_forgets_its_first_weights_faster(n: int, decay: float, kept: float) -> None:
    mean = _moving_average(decay, torch.tensor(1.0), torch.tensor(0.0), torch.tensor(n))
    assert float(mean) == pytest.approx(kept, rel=1e-5)


@pytest.mark.parametrize(("later_s", "n_beats"), [(0.49, 0), (0.5, 1), (0.51, 1)])
def test_beats_within_half_a_second_are_one(
    later_s: float, n_beats: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = [1000.0]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now[0])
    pulse = heartbeat.Pulse(tmp_path)
    pulse.beat(1, 1)
    before = pulse.last.count
    now[0] += later_s
    pulse.beat(1, 2)
    assert pulse.last.count - before == n_beats


@pytest.mark.parametrize(("off", "is_none"), [(0.9e-6, True), (1.1e-6, False)])
def test_a_millionth_of_noise_or_of_data_is_none(off: float, is_none: bool) -> None:
    phi = torch.tensor([off], dtype=torch.float64)
    assert bool(eps_of_x0(torch.ones(1), torch.zeros(1), phi) == 0) is is_none
    assert bool(alpha_sigma(math.pi / 2 - phi)[0] == 0) is is_none


@pytest.mark.parametrize(("n", "n_kept"), [(4095, 4095), (4096, 4096), (4097, 4096), (20_000, 4096)])
def test_4096_centres_of_a_case_are_kept_from_the_first_to_the_last(n: int, n_kept: int) -> None:
    found = thinned(np.repeat(np.arange(n)[:, None], 3, axis=1))
    assert len(np.unique(found[:, 0])) == n_kept
    assert (found[0, 0], found[-1, 0]) == (0, n - 1)


def test_a_window_leaves_half_a_percent_at_either_end_and_is_told_in_tens(
    make_case: Callable[..., Case], tmp_path: Path
) -> None:
    case = make_case()
    organs = [name not in case.prescription_gy for name in case.structure_names]
    inside = case.masks[organs].any(axis=0)
    image = np.full(case.ct_hu.shape, 20_000, np.int16)
    image[inside] = np.linspace(0, 11_600, int(inside.sum())).astype(np.int16)
    path = tmp_path / "case_0001.npz"
    replace(case, ct_hu=image).save(path)
    # 58 and 11,542.
    assert fingerprint([open_case(CaseFile("case_0001", path, sha256_of_file(path)))]).window == (50.0, 11_550.0)


@pytest.mark.parametrize(("n", "window"), [(39_999, (0.0, 11_000.0)), (40_000, (0.0, 0.0)), (59_999, (0.0, 0.0))])
def test_twenty_thousand_voxels_of_a_case_tell_its_window(
    n: int, window: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every second voxel is bright: where every second is taken, none of them.
    arrays = {"masks": np.ones((1, 1, 1, n), np.uint8), "ct_hu": np.tile([0, 11_000], n)[None, None, :n]}
    monkeypatch.setattr(fingerprint_module, "map_member", lambda path, name: arrays[name])
    case: Any = SimpleNamespace(structure_names=["Rectum"], file=SimpleNamespace(path=None))
    assert fingerprint_module._window([case], ["Rectum"]) == window


def test_the_steps_of_sampling_lie_dense_towards_both_ends() -> None:
    wanted = [math.atan2(math.sin(x), math.exp(-1.5) * math.cos(x)) for x in
              (math.pi / 2, math.pi / 2 * 0.75**2.5, math.pi / 2 * 0.5**2.5, math.pi / 2 * 0.25**2.5, 0.0)]  # fmt: skip
    assert sampling_angles(4).tolist() == pytest.approx(wanted, abs=1e-6)


def test_the_time_is_told_in_eight_octaves() -> None:
    found = embed_time(torch.tensor([0.01], dtype=torch.float64))
    turns = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28]
    assert found.tolist() == [pytest.approx([*map(math.sin, turns), *map(math.cos, turns)])]


@pytest.mark.parametrize(("dose_gy", "step"), [
    (0.0, 0), (0.14, 0), (0.16, 1), (30.0, 100), (76.4, 255), (76.5, 255), (900.0, 255), (-1.0, 0),
])  # fmt: skip
def test_maps_of_beams_are_kept_in_steps_of_0_3_gy(dose_gy: float, step: int) -> None:
    assert as_steps(np.full((1, 1, 1), dose_gy, np.float32)).tolist() == [[[step]]]


@pytest.mark.parametrize(("patch", "batch", "precision", "words"), [
    ([36, 48, 64], 4, "32-true", "lower sampling.batch_size to 2 (and raise fit.accumulate from 3 as much), then "
     "sampling.patch_zyx to [30, 40, 52], then the network's width; or set fit.precision to bf16-mixed"),
    ([36, 48, 64], 1, "bf16-mixed", "lower sampling.patch_zyx to [30, 40, 52], then the network's width"),
    ([2, 4, 4], 3, "bf16-mixed", "lower sampling.batch_size to 1 (and raise fit.accumulate from 3 as much), then "
     "the network's width"),
])  # fmt: skip
def test_what_needs_less_memory_is_told_the_cheapest_first(
    patch: list[int], batch: int, precision: str, words: str
) -> None:
    recipe: Any = SimpleNamespace(
        sampling=SimpleNamespace(patch_zyx=patch, batch_size=batch),
        fit=SimpleNamespace(accumulate=3, precision=precision),
        network=SimpleNamespace(total_stride_zyx=(2, 4, 4)),
    )
    assert what_to_lower(recipe) == words

"""An archive cut into parts: sizes, digests and blocks written out, read across parts, and each damage placed."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fixtures.known import assert_known

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import write_json
from doseledger.ledger.bundle import parts as module
from doseledger.ledger.bundle.pack import index_path, pack
from doseledger.ledger.bundle.parts import PartReader, PartWriter, check_names, require_space, scratch_folder
from doseledger.ledger.bundle.record import Order
from doseledger.ledger.bundle.rehydrate import rehydrate
from doseledger.ledger.bundle.sources import Wanted, pair_files
from doseledger.ledger.bundle.verify import archive_of, verify_bundle

DATA = bytes(range(250)) * 10


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("parts", "pack"):
        monkeypatch.setattr(f"doseledger.ledger.bundle.{path}.BLOCK_BYTES", 1000)


@pytest.mark.parametrize(
    ("limit", "sizes"), [(None, [2500]), (700, [700, 700, 700, 400]), (1250, [1250, 1250]), (2500, [2500])]
)
@pytest.mark.parametrize("step", [1, 300, 2500])
def test_parts_and_blocks_have_the_sizes_and_digests_of_their_bytes(
    limit: int | None, sizes: list[int], step: int, small_blocks: None, tmp_path: Path
) -> None:
    with PartWriter(tmp_path, "x.tar", limit) as stream:
        for start in range(0, 2500, step):
            assert stream.tell() == start
            assert stream.write(DATA[start : start + step]) == len(DATA[start : start + step])
    stream.close()
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    names = ["x.tar"] if limit is None else [f"x.tar.{k + 1:03d}" for k in range(len(sizes))]
    told = [(part.name, part.size, part.sha256) for part in stream.parts]
    wanted = zip(names, starts, sizes, strict=True)
    assert told == [(name, size, digest(DATA[start : start + size])) for name, start, size in wanted]
    assert stream.blocks == [digest(DATA[:1000]), digest(DATA[1000:2000]), digest(DATA[2000:])]
    assert b"".join((tmp_path / name).read_bytes() for name in names) == DATA
    assert module.find_parts(tmp_path / "x.tar") == [tmp_path / name for name in names if name != "x.tar"]


def test_parts_are_read_as_one_stream_that_can_be_searched(tmp_path: Path) -> None:
    paths = []
    for k, (start, stop) in enumerate(((0, 700), (700, 1400), (1400, 2500))):
        paths.append(tmp_path / f"x.{k}")
        paths[-1].write_bytes(DATA[start:stop])
    reader = PartReader(paths)
    assert (reader.readable(), reader.seekable()) == (True, True)
    assert io.BufferedReader(reader, 64).read() == DATA
    reader = PartReader(paths)
    for offset, whence, at in (
        (5, 0, 5),
        (690, 0, 690),
        (-100, 2, 2400),
        (-9999, 1, 0),
        (1400, 0, 1400),
        (3000, 0, 3000),
    ):
        assert reader.seek(offset, whence) == at
        assert reader.read(20) == DATA[at : min(at + 20, next((e for e in (700, 1400) if at < e), 2500))]
    assert reader.seek(10) == 10
    assert reader.seek(7, 1) == 17
    assert reader.readinto(bytearray(4)) == 4
    assert reader.seek(0, 1) == 21
    files = reader._files
    reader.close()
    assert all(file.closed for file in files)


@pytest.mark.parametrize(("free", "is_enough"), [(1_000_000, True), (999_999, False)])
def test_room_is_asked_of_the_nearest_folder_that_is_there(
    free: int, is_enough: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=free))
    if is_enough:
        require_space(tmp_path / "a/b", 1_000_000)
    else:
        with pytest.raises(NotReady, match=r": 1 MB are needed and 1 MB free; make room or go elsewhere"):
            require_space(tmp_path / "a/b", 1_000_000)
    assert asked == [tmp_path]


def test_a_folder_for_scratch_is_new_and_gone_afterwards_with_those_of_dead_processes(tmp_path: Path) -> None:
    target = tmp_path / "deep/x.tar"
    dead, odd = target.with_name(f".x.tar.{2**22 + 5}.part"), target.with_name(".x.tar.abc.part")
    for folder in (dead, odd, target.with_name(f".y.tar.{2**22 + 5}.part")):
        folder.mkdir(parents=True)
    with scratch_folder(target) as scratch:
        assert scratch == target.with_name(f".x.tar.{os.getpid()}.part")
        assert list(scratch.iterdir()) == []
        (scratch / "a").write_text("half")
    assert sorted(path.name for path in target.parent.iterdir()) == [odd.name, f".y.tar.{2**22 + 5}.part"]


@pytest.mark.parametrize(("name", "fault"), [
    ("/a", "is an absolute path"), ("c:a", "is an absolute path"), ("a/../b", "reaches out of its folder"),
    ("a\nb", "holds a character that is no text"), ("", "is not a plain path"), ("a//b", "is not a plain path"),
    ("./a", "is not a plain path"), ("a*", "holds a character that not every file system takes"),
    ("a./b", "has a part that Windows does not take"), ("b ", "has a part that Windows does not take"),
    ("lpt1.txt/x", "has a part that Windows does not take"), ("a/NUL", "has a part that Windows does not take"),
])  # fmt: skip
def test_a_name_that_is_not_plain_everywhere_is_refused_with_its_fault(name: str, fault: str) -> None:
    with pytest.raises(BadInput, match=f"^x: .* {fault}"):
        check_names(["sound", name], "x")


def test_names_that_meet_are_refused_and_others_pass() -> None:
    check_names(["a/b", "a/c", "ab", "nul1", "con.d", "ca.b/x"][:4], "x")
    for names, fault in ((["a", "a"], "'a' is there twice"), (["é", "É"],
        "'É' and 'é' are one file where case does not"),
                         (["a/b", "A"], "'A' is a file, but 'a/b' needs a folder of that name")):  # fmt: skip
        with pytest.raises(BadInput, match=fault):
            check_names(names, "x")


@pytest.mark.parametrize(("name", "archive"), [
    ("a.tar", "a.tar"), ("a.tar.001", "a.tar"), ("a.tar.index.json", "a.tar"), ("a.tar.01", "a.tar.01"),
    ("a.tar.0001", "a.tar.0001"), ("a.tar.abc", "a.tar.abc"), ("001", "001"),
])  # fmt: skip
def test_a_bundle_is_named_by_any_of_its_files(name: str, archive: str, tmp_path: Path) -> None:
    assert archive_of(tmp_path / name) == tmp_path / archive


@pytest.fixture
def toy(order: Callable[..., Order], project: Path, small_blocks: None, tmp_path: Path) -> Path:
    """A bundle of a page of known bytes and small files beside, in two parts."""
    for k in range(3):
        (project / f"models/toy/part_{k}.bin").write_bytes(bytes([k]) * 1500)
    wanted = Wanted(runs=(project / "models/toy",), reports=(project / "report.html",))
    pack(tmp_path / "out/toy.tar", order(wanted, contract=None, part_bytes=20_000), None, lambda line: None)
    return tmp_path / "out/toy.tar"


def test_damaged_bytes_are_placed_by_block_part_and_file(toy: Path) -> None:
    told: list[str] = []
    check = verify_bundle(toy, "", told.append)
    paths = module.find_parts(toy)
    joined = b"".join(path.read_bytes() for path in paths)
    sizes = [path.stat().st_size for path in paths]
    assert (check.bundle, check.findings, sizes[0], len(sizes)) == ("toy.tar", [], 20_000, 2)
    n_blocks = -(-len(joined) // 1000)
    assert told == [f"{n_blocks} block(s) read, 0 damaged range(s)"]
    with module.open_reader(paths, "x") as (_, members):
        heads = dict(members)
    assert (check.n_files, check.n_bytes) == (len(heads), sum(head.size for head in heads.values()))
    assert check.as_dict() == {
        "ok": True,
        "bundle": "toy.tar",
        "findings": [],
        "n_files": check.n_files,
        "n_bytes": check.n_bytes,
    }
    # Two blocks side by side within one file, and the last of all, which lies behind every file.
    at = heads["models/toy/part_1.bin"].offset_data
    places = (at + 10, at // 1000 * 1000 + 1000, len(joined) - 1)
    damaged = bytearray(joined)
    for place in places:
        damaged[place] ^= 1
    paths[0].write_bytes(damaged[:20_000])
    paths[1].write_bytes(damaged[20_000:])
    first = at // 1000 * 1000
    touched = [
        name for name, head in heads.items() if head.offset_data < first + 2000 and head.offset_data + head.size > first
    ]
    told.clear()
    found = verify_bundle(toy, "", told.append).findings
    assert told == [f"{n_blocks} block(s) read, 2 damaged range(s)"]
    last = (n_blocks - 1) * 1000
    where = [paths[k].name for k in (0, 1) if (first < 20_000 if k == 0 else first + 2000 > 20_000)]
    assert found == [
        f"{', '.join(where)}: bytes {first} to {first + 1999} of the archive are not what was packed; there "
        f"lies {', '.join(touched)}",
        f"{paths[1].name}: bytes {last} to {len(joined) - 1} of the archive are not what was packed",
        "models/toy/part_1.bin: changed",
    ]


def test_all_that_a_bundle_says_of_itself(order: Callable[..., Order], project: Path, tmp_path: Path) -> None:
    run = {"device": "CPU", "seed": 3, "provenance": {"git": {"commit": "a" * 40, "dirty": False}, "python": "3.11",
           "platform": "Linux", "packages": {"numpy": "2"}, "command": ["doseledger", "train"],
           "lock_sha256": "e" * 64}}  # fmt: skip
    write_json(project / "models/toy/run.json", run)
    md5 = hashlib.md5((project / "report.html").read_bytes()).hexdigest()
    lock = {"schema": "2.0", "stages": {
        "raw": {"cmd": "make raw", "outs": [{"path": "data/raw", "md5": "1" * 32}]},
        "ingest": {"cmd": ["make  cases", "check"], "deps": [{"path": "data/raw/x", "md5": "2" * 32},
            {"path": "src/a", "md5": "3" * 32}],
                   "outs": [{"path": "data/cases/toy", "md5": f"{'4' * 32}.dir"}]},
        "report": {"cmd": "make report", "deps": [{"path": "data/cases", "md5": "5" * 32}, {"path": "tool.py",
            "md5": "6" * 32}],
                   "outs": [{"path": "report.html", "md5": md5}]},
        "other": {"cmd": "x", "deps": [{"path": "report.html", "md5": md5}], "outs": [{"path": "reports",
            "md5": "7" * 32}]},
    }}  # fmt: skip
    write_json(project / "dvc.lock", lock)
    (tmp_path / "cache").mkdir()
    files = pair_files([project / "weights.dill"], [project / "weights.json"], ["train@toy"])
    wanted = Wanted(
        data=(project / "data/cases/toy",), runs=(project / "models/toy",), reports=(project / "report.html",),
        files=files, evidence=(project / "pytest.log",),
    )  # fmt: skip
    audit = {"length": 12, "sha256": "a" * 64, "log_id": "b" * 64}
    told: list[str] = []
    out = tmp_path / "out" / "toy.tar"
    pack(out, order(wanted, scenario="S-7", audit=audit), tmp_path / "cache", told.append)
    rehydrate(out, tmp_path / "back", "", told.append)
    names = ["README.md", "manifest.md", "manifest.json", "files.csv", "SHA256SUMS"]
    text = [f"== {name}\n{(tmp_path / 'back' / name).read_text()}" for name in names]
    listed = sorted(
        path.relative_to(tmp_path / "back").as_posix() for path in (tmp_path / "back").rglob("*") if path.is_file()
    )
    assert_known(
        Path(__file__).parent / "known" / "bundle.txt",
        "\n".join([*told, *listed, *text, index_path(out).read_text()]).replace(str(tmp_path), ""),
    )


def test_an_array_of_findings_is_a_refusal(toy: Path) -> None:
    from doseledger.core.errors import GateFailed
    from doseledger.ledger.bundle.verify import BundleCheck, enforce_whole

    enforce_whole(BundleCheck("x"))
    found: Any = [f"fault {k}" for k in range(23)]
    with pytest.raises(GateFailed, match=r"x: not what was packed, 23 finding\(s\):\n  - fault 0\n") as caught:
        enforce_whole(BundleCheck("x", found))
    assert str(caught.value).endswith("\n  - fault 19\n  - and 3 more")

"""Bit rot: a flipped bit in cache or workspace is named, which DVC itself does not notice."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from doseledger.core.errors import BadInput, NotReady
from doseledger.ledger.bundle.bitrot import (
    Recorded,
    RotReport,
    expand_out,
    object_path,
    recorded_files,
    recorded_outs,
    verify_objects,
    verify_recorded,
)
from doseledger.ledger.provenance.dvc_project import cache_folder


def silent(line: str) -> None:
    """Tell nobody."""


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def keep(cache: Path, content: bytes, suffix: str = "") -> str:
    name = md5(content) + suffix
    path = object_path(cache, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return name


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project as DVC leaves it: a folder and a file of two stages, a tracked file, and a stage in a file below."""
    root, cache = tmp_path / "p", tmp_path / "p" / ".dvc" / "cache" / "files" / "md5"
    contents = {"data/cases/a.npz": b"first", "data/cases/b.npz": b"second", "metrics.json": b"{}", "raw/x.zip": b"raw"}
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
        keep(cache, content)
    listing = json.dumps([{"md5": md5(contents[f"data/cases/{n}"]), "relpath": n} for n in ("a.npz", "b.npz")]).encode()
    folder = keep(cache, listing, ".dir")
    stages = {
        "ingest": {"cmd": "x", "outs": [{"path": "data/cases", "md5": folder}]},
        "evaluate@m": {"cmd": "y", "outs": [{"path": "metrics.json", "md5": md5(b"{}")}]},
    }
    (root / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))
    (root / "raw" / "x.zip.dvc").write_text(json.dumps({"outs": [{"path": "x.zip", "md5": md5(b"raw")}]}))
    (root / "below").mkdir()
    (root / "below" / "dvc.yaml").write_text(
        json.dumps({"stages": {"make": {"wdir": "..", "cmd": "z", "outs": ["m.txt"]}}})
    )
    nested = {"make": {"cmd": "z", "outs": [{"path": "m.txt", "md5": keep(cache, b"made")}]}}
    (root / "below" / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": nested}))
    (root / "m.txt").write_bytes(b"made")
    return root


def cache_of(project: Path) -> Path:
    return project / ".dvc" / "cache" / "files" / "md5"


def test_every_recorded_file_is_known_with_its_stage(project: Path) -> None:
    found = recorded_files(project, cache_of(project))
    assert {path: record.stage for path, record in found.items()} == {
        "data/cases": "ingest",
        "data/cases/a.npz": "ingest", "data/cases/b.npz": "ingest", "metrics.json": "evaluate@m",
        "raw/x.zip": "raw/x.zip.dvc", "m.txt": "below/dvc.yaml:make",
    }  # fmt: skip


def test_what_is_as_recorded_is_no_finding_and_a_link_is_read_once(project: Path) -> None:
    report = verify_recorded(project, cache_of(project), silent)
    assert (report.findings, report.n_files, report.n_read, report.absent) == ([], 5, 10, [])
    os.unlink(project / "data/cases/a.npz")
    os.link(object_path(cache_of(project), md5(b"first")), project / "data/cases/a.npz")
    assert verify_recorded(project, cache_of(project), silent).n_read == 9


def flip(path: Path) -> None:
    """Flip a bit as a disk does: size and times stay."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_flipped_bit_is_named_with_its_place_and_its_cure(project: Path) -> None:
    flip(object_path(cache_of(project), md5(b"second")))
    found = verify_recorded(project, cache_of(project), silent).findings
    assert len(found) == 1
    assert found[0].startswith("data/cases/b.npz (ingest): the cache's copy ")
    assert "`dvc commit data/cases/b.npz`: the workspace has the right content" in found[0]
    flip(project / "data/cases/b.npz")
    found = verify_recorded(project, cache_of(project), silent).findings
    assert len(found) == 2
    assert all("`dvc pull" in line for line in found)
    flip(object_path(cache_of(project), md5(b"second")))
    assert (
        "`dvc checkout data/cases/b.npz`, the cache's copy is right"
        in (verify_recorded(project, cache_of(project), silent).findings[0])
    )


def test_a_damaged_list_of_a_folder_is_named(project: Path) -> None:
    out = next(item for item in recorded_outs(project) if item.path == "data/cases")
    flip(object_path(cache_of(project), out.md5))
    assert verify_recorded(project, cache_of(project), silent).findings == [
        f"data/cases: the cache's list of its files is damaged ({out.md5[:2]}/{out.md5[2:]}); delete it and fetch it "
        "again (`dvc pull data/cases`), or run `dvc commit data/cases` if the folder itself is right"
    ]


def test_what_is_not_here_is_counted_and_when_nothing_is_here_that_is_an_error(project: Path) -> None:
    import shutil

    (project / "metrics.json").unlink()
    object_path(cache_of(project), md5(b"{}")).unlink()
    assert verify_recorded(project, cache_of(project), silent).absent == ["metrics.json"]
    shutil.rmtree(project / ".dvc")
    for name in ("data", "m.txt", "raw/x.zip"):
        path = project / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(NotReady, match="no copy of any is here; run `dvc pull`"):
        verify_recorded(project, cache_of(project), silent)


def test_objects_of_other_experiments_are_read_too(project: Path) -> None:
    name = keep(cache_of(project), b"an older checkpoint")
    assert verify_objects(cache_of(project)).findings == []
    flip(object_path(cache_of(project), name))
    assert verify_recorded(project, cache_of(project), silent).findings == []
    assert verify_objects(cache_of(project)).findings[0].startswith(f"cache object {name[:2]}/{name[2:]}: its content")


def test_a_lock_that_makes_no_sense_is_refused(project: Path) -> None:
    (project / "dvc.lock").write_text(json.dumps({"stages": {"ingest": {"outs": [{"md5": "0" * 32}]}}}))
    with pytest.raises(BadInput, match="ingest: one of its outs has no path"):
        recorded_outs(project)


@pytest.mark.slow
def test_dvc_itself_does_not_notice_and_we_do(tmp_path: Path) -> None:
    dvc = [str(Path(sys.executable).with_name("dvc"))]

    def run(*arguments: str) -> str:
        quiet = {**os.environ, "DVC_NO_ANALYTICS": "1"}
        return subprocess.run(
            [*dvc, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True, env=quiet
        ).stdout

    run("init", "--no-scm", "-q")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.bin").write_bytes(bytes(10_000))
    run("add", "-q", "data")
    cache = cache_folder(tmp_path)
    assert cache is not None
    assert verify_recorded(tmp_path, cache, silent).findings == []
    os.chmod(tmp_path / "data" / "a.bin", 0o644)
    flip(tmp_path / "data" / "a.bin")
    assert "up to date" in run("status")
    assert (
        verify_recorded(tmp_path, cache, silent).findings[0].startswith("data/a.bin (data.dvc): the workspace's copy")
    )
    assert cache_folder(tmp_path.parent) is None


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def test_a_whole_report_counts_each_copy_once_and_says_what_to_do_with_each(project: Path) -> None:
    told: list[str] = []
    cache = cache_of(project)
    n_bytes = sum(len(content) for content in (b"first", b"second", b"{}", b"raw", b"made"))
    assert verify_recorded(project, cache, told.append) == RotReport([], 5, 10, 2 * n_bytes, [])
    assert told == [
        "m.txt: 1 file(s) of below/dvc.yaml:make", "data/cases: 2 file(s) of ingest",
        "metrics.json: 1 file(s) of evaluate@m",
        "raw/x.zip: 1 file(s) of raw/x.zip.dvc",
    ]  # fmt: skip
    damage(object_path(cache, md5(b"first")))
    damage(project / "data/cases/b.npz")
    damage(object_path(cache, md5(b"{}")))
    damage(project / "metrics.json")
    (project / "m.txt").unlink()
    object_path(cache, md5(b"made")).unlink()
    (project / "raw/x.zip").unlink()
    report = verify_recorded(project, cache, told.append)
    names = {content: f"{md5(content)[:2]}/{md5(content)[2:]}" for content in (b"first", b"{}")}
    again = "make it again with `dvc repro`"
    assert report.findings == [
        f"data/cases/a.npz (ingest): the cache's copy {names[b'first']} is damaged; delete that object and run "
        f"`dvc commit "
        "data/cases/a.npz`: the workspace has the right content",
        f"data/cases/b.npz (ingest): the workspace's copy is not what was recorded (md5 {md5(b'second')}); if "
        f"nobody edited it, "
        "it is damaged: delete it and run `dvc checkout data/cases/b.npz`, the cache's copy is right",
        f"metrics.json (evaluate@m): the cache's copy {names[b'{}']} is damaged; delete both, then `dvc pull "
        f"metrics.json`, or {again}",
        f"metrics.json (evaluate@m): the workspace's copy is not what was recorded (md5 {md5(b'{}')}); if "
        f"nobody edited it, it is "
        f"damaged; delete it, then `dvc pull`, or {again}",
    ]
    assert (report.absent, report.n_files, report.n_read) == (["m.txt"], 5, 7)
    assert report.n_bytes == 2 * (len(b"first") + len(b"second") + len(b"{}")) + len(b"raw") + 4
    assert report.as_dict()["absent"] == ["m.txt"]


def test_objects_are_counted_by_their_names_folders_among_them_and_temporary_files_are_none(project: Path) -> None:
    cache = cache_of(project)
    (cache / "ab").mkdir(exist_ok=True)
    (cache / "ab" / ("c" * 29)).write_bytes(b"short")
    (cache / "ab" / f"{'c' * 30}.tmp").write_bytes(b"of a fetch that was stopped")
    whole = verify_objects(cache)
    n_bytes = (
        sum(path.stat().st_size for path in cache.glob("*/*")) - len(b"short") - len(b"of a fetch that was stopped")
    )
    assert whole == RotReport([], 6, 6, n_bytes, [])
    damage(next(cache.glob("*/*.dir")))
    (found,) = verify_objects(cache).findings
    name = next(cache.glob("*/*.dir"))
    assert found == (
        f"cache object {name.parent.name}/{name.name}: its content has another hash; delete it, then `dvc pull` "
        f"or make it again"
    )


def test_a_folder_without_its_list_is_absent_and_a_file_stands_for_itself(project: Path) -> None:
    cache = cache_of(project)
    file, folder = Recorded("a", "1" * 32, "s"), Recorded("data/cases", f"{'2' * 32}.dir", "s")
    assert expand_out(file, cache) == [file]
    assert expand_out(folder, cache) is None
    next(cache.glob("*/*.dir")).unlink()
    report = verify_recorded(project, cache, silent)
    assert (report.absent, report.n_files, report.findings) == (["data/cases"], 3, [])
    assert sorted(recorded_files(project, cache)) == ["data/cases", "m.txt", "metrics.json", "raw/x.zip"]

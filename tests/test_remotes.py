"""Data that several clones and several people share."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

DVC = str(Path(sys.executable).with_name("dvc"))


def run(where: Path, *command: str, umask: int = 0o022) -> str:
    environment = os.environ | {"ITERATIVE_DO_NOT_TRACK": "1"}
    environment.pop("DVC_ROOT", None)
    done = subprocess.run(command, cwd=where, env=environment, umask=umask, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache as docs/how-to/scale.md makes one, with data that somebody added who hides his files from others."""
    root = tmp_path_factory.mktemp("shared")
    (root / "cache").mkdir()
    (root / "cache").chmod(0o2775)
    anna = root / "anna"
    anna.mkdir()
    run(anna, "git", "init", "--quiet", "--initial-branch=main")
    run(anna, DVC, "init", "--quiet")
    run(anna, DVC, "config", "cache.type", "reflink,hardlink,copy")
    run(anna, DVC, "cache", "dir", str(root / "cache"))
    run(anna, DVC, "config", "cache.shared", "group")
    (anna / "cases").mkdir()
    (anna / "cases/case_0001.npz").write_bytes(b"one")
    run(anna, DVC, "add", "--quiet", "cases", umask=0o077)
    run(anna, "git", "add", "--all")
    run(anna, "git", "-c", "user.name=anna", "-c", "user.email=anna@example.org", "commit", "--quiet", "-m", "cases")
    return root / "cache"


def test_a_shared_cache_is_the_groups_own_whoever_wrote_it_with_whatever_umask(cache: Path) -> None:
    folders = [path for path in (cache, *cache.rglob("*")) if path.is_dir()]
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert len(files) == 2
    # Written by each of the group, and given on to it; files are read by all of them, and written by nobody.
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o2775}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o444}
    assert {path.stat().st_gid for path in (*folders, *files)} == {cache.stat().st_gid}


def test_a_second_clone_takes_its_data_from_the_shared_cache_and_damages_nothing(cache: Path) -> None:
    anna, ben = cache.parent / "anna", cache.parent / "ben"
    run(cache.parent, "git", "clone", "--quiet", str(anna), str(ben))
    run(ben, DVC, "checkout", "--quiet")
    assert (ben / "cases/case_0001.npz").read_bytes() == b"one"
    part = ben / "cases/case_0001.part"
    part.write_bytes(b"another one")
    part.replace(ben / "cases/case_0001.npz")
    run(ben, DVC, "add", "--quiet", "cases", umask=0o077)
    assert (anna / "cases/case_0001.npz").read_bytes() == b"one"
    assert run(anna, DVC, "status").strip() == "Data and pipelines are up to date."
    modes = {stat.S_IMODE(path.stat().st_mode) for path in cache.rglob("*") if path.is_dir()}
    assert modes == {0o2775}

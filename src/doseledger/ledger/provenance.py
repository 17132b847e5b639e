"""What made a result: code revision, DVC hashes, environment.

Git is asked through its own command: DVC needs that command anyhow, it answers in milliseconds where gitpython or
dulwich (which DVC brings along) cost an import of half a second, and its plumbing has been stable for decades.
"""

from __future__ import annotations

import os
import platform
import posixpath
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml, sha256_of_file

PARAMS_FILE = "params.yaml"
LOCK_FILE = "dvc.lock"
PIPELINE_FILE = "dvc.yaml"
HOOK_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
# The packages whose version can change a number.
NAMED_PACKAGES = (
    "doseledger", "numpy", "scipy", "numba", "torch", "pytorch-lightning", "monai", "pydicom", "edt", "pandas", "dvc",
)  # fmt: skip


@dataclass(frozen=True)
class GitState:
    """The code revision of a working tree.

    Parameters
    ----------
    commit
        Full hash of HEAD; None where there is no commit to name.
    branch
        Current branch; None on a detached HEAD or without a repository.
    dirty
        Whether the code at work differs from `commit`; True also where no commit names it.
    dirty_paths
        Tracked files that differ, relative to the project's root, sorted.
    note
        One sentence for a person; empty when the tree is clean.
    """

    commit: str | None
    branch: str | None
    dirty: bool
    dirty_paths: tuple[str, ...]
    note: str

    def as_dict(self) -> dict[str, Any]:
        """Return the state as plain JSON values."""
        return {**asdict(self), "dirty_paths": list(self.dirty_paths)}


def git_state(root: Path) -> GitState:
    """Return the code revision of the project at `root`, and whether its tree is dirty.

    A tree is dirty when tracked files differ from HEAD, other than those that a repro itself changes: params.yaml,
    dvc.lock, `*.dvc`, `.gitignore` and outs of stages. Files that Git doesn't track don't count.
    """
    problem = _no_repository(root)
    if problem:
        return GitState(None, None, True, (), f"{problem}, so no commit names the code that made this")
    branch = _git(root, "symbolic-ref", "--quiet", "--short", "HEAD").stdout.strip() or None
    head = _git(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if head.returncode != 0:
        return GitState(None, branch, True, (), "the Git repository has no commit yet, so none names this code")
    diff = _git(root, "diff", "--name-only", "--no-renames", "--no-ext-diff", "--relative", "-z", "HEAD", "--", ".")
    if diff.returncode != 0:
        note = f"git diff failed ({diff.stderr.strip()}), so nobody knows whether the tree is clean"
        return GitState(head.stdout.strip(), branch, True, (), note)
    outs = stage_outs(root)
    changed = tuple(sorted(path for path in diff.stdout.split("\0") if path and not _repro_changes(path, outs)))
    note = ""
    if changed:
        files = "1 tracked file differs" if len(changed) == 1 else f"{len(changed)} tracked files differ"
        note = f"{files} from the commit"
    return GitState(head.stdout.strip(), branch, bool(changed), changed, note)


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # A hook's GIT_DIR would point elsewhere. Messages in English, no lock taken (another git may work), no prompt.
    outer = {name: value for name, value in os.environ.items() if name not in HOOK_VARIABLES}
    environment = {**outer, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    return subprocess.run(
        ["git", "-C", str(root), *arguments],
        capture_output=True, text=True, check=False, env=environment, encoding="utf-8", errors="surrogateescape",
    )  # fmt: skip


def _no_repository(root: Path) -> str:
    """Why Git can't answer for this folder; empty when it can."""
    try:
        inside = _git(root, "rev-parse", "--is-inside-work-tree")
    except FileNotFoundError:
        return "the git command is not installed"
    if inside.returncode == 0 and inside.stdout.strip() == "true":
        return ""
    if "dubious ownership" in inside.stderr:
        return "Git refuses this folder because another user owns it (see git's safe.directory)"
    return "this is no Git working tree"


def stage_outs(root: Path) -> frozenset[str]:
    """Return the outs of the stages of every dvc.lock, in the tree and in HEAD, relative to the project."""
    tracked = _git(root, "ls-files", "-z", "--", LOCK_FILE, f"**/{LOCK_FILE}").stdout.split("\0")
    found: set[str] = set()
    for lock in {PurePosixPath(name) for name in (LOCK_FILE, *tracked) if name}:
        pipeline = _stages_of(_read_if_there(root / lock.with_name(PIPELINE_FILE)))
        committed = _git(root, "show", f"HEAD:./{lock}")
        locks = [_read_if_there(root / lock)]
        if committed.returncode == 0:
            locks.append(_parse_lock(committed.stdout))
        for name, stage in (entry for content in locks for entry in _stages_of(content).items()):
            written = pipeline.get(name.partition("@")[0]) or {}
            # A stage's paths are relative to its wdir, and that to the file's own folder.
            folder = lock.parent / str(written.get("do", written).get("wdir", "."))
            found |= {posixpath.normpath(folder / str(out["path"])) for out in stage.get("outs") or []}
    return frozenset(found)


def _read_if_there(path: Path) -> Any:
    return read_yaml(path) if path.is_file() else {}


def _stages_of(content: Any) -> dict[str, dict[str, Any]]:
    stages = content.get("stages") if isinstance(content, dict) else None
    return stages if isinstance(stages, dict) else {}


def _parse_lock(text: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        # An unreadable lock in HEAD takes no file off the list: the stricter answer.
        return {}


def _repro_changes(path: str, outs: frozenset[str]) -> bool:
    pure = PurePosixPath(path)
    if path == PARAMS_FILE or pure.name in (LOCK_FILE, ".gitignore") or pure.suffix == ".dvc":
        return True
    return path in outs or any(str(parent) in outs for parent in pure.parents)


def dvc_hashes(lock_file: Path, stages: Sequence[str] | None = None) -> dict[str, dict[str, dict[str, str]]]:
    """Return {stage: {"deps": {path: md5}, "outs": {path: md5}}} of dvc.lock; empty where there is no such file.

    Parameters
    ----------
    lock_file
        A dvc.lock.
    stages
        Stages to return (`train@dose_unet`), those that the lock doesn't know left out; None for all.

    Raises
    ------
    BadInput
        If the file is no dvc.lock.
    """
    if not lock_file.is_file():
        return {}
    lock = read_yaml(lock_file)
    if not isinstance(lock, dict) or not isinstance(lock.get("stages", {}), dict):
        raise BadInput(f"{lock_file}: not a dvc.lock (no mapping of stages); run `dvc repro` again")
    known = lock.get("stages") or {}
    wanted = known if stages is None else [name for name in stages if name in known]
    return {
        name: {
            kind: {
                str(item["path"]): str(item.get("md5") or item.get("hash") or "")
                for item in known[name].get(kind) or []
            }
            for kind in ("deps", "outs")
        }
        for name in wanted
    }


def run_provenance(root: Path, command: Sequence[str], lock_file: Path) -> dict[str, Any]:
    """Return what a training run records of its code and environment, as JSON values.

    Parameters
    ----------
    root
        The project's root.
    command
        Arguments of the command as it was called; an absolute path below `root` is made relative to it.
    lock_file
        The lock of Python packages (requirements.lock).

    Notes
    -----
    No host name, user or clock. torch is asked only where it is loaded already: its import costs two seconds.
    """
    root = root.resolve()
    return {
        "git": git_state(root).as_dict(),
        "command": [_relative(argument, root) for argument in command],
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: version for name in NAMED_PACKAGES if (version := _version(name))},
        "lock_sha256": sha256_of_file(lock_file) if lock_file.is_file() else None,
        **_accelerators(),
    }


def _relative(argument: str, root: Path) -> str:
    path = Path(argument)
    if not path.is_absolute():
        return argument
    return str(path.relative_to(root)) if path.is_relative_to(root) else path.name


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _accelerators() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    if torch is None:
        return {"torch": _version("torch"), "cuda": None, "gpus": None}
    gpus = []
    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"torch": str(torch.__version__), "cuda": torch.version.cuda, "gpus": gpus}

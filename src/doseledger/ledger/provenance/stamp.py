"""The stamp of a result: code revision and environment."""

from __future__ import annotations

import platform
import posixpath
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file
from doseledger.core.text.lists import first_of
from doseledger.ledger.provenance.dvc_files import Stages, lock_stages, parse_yaml, read_lock, read_pipeline
from doseledger.ledger.provenance.git import NO_GIT, run_git

PARAMS_FILE = "params.yaml"
LOCK_FILE = "dvc.lock"
PIPELINE_FILE = "dvc.yaml"
# Changed files that a line names.
MOST_NAMED = 10
# Stands for a cohort or a model in dvc.yaml.
ANY_ITEM = re.compile(r"\$\{[^}]*\}")
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

    def describe(self) -> str:
        """Return what makes the tree dirty in one line, with the first files; empty when it is clean."""
        if not self.dirty:
            return ""
        files = first_of(self.dirty_paths, MOST_NAMED)
        return f"DIRTY TREE: {self.note}" + (f" ({files})" if files else "")


def git_state(root: Path) -> GitState:
    """Return the code revision of the project at `root`, and whether its tree is dirty.

    A tree is dirty when tracked files differ from HEAD, other than those that a repro itself changes: params.yaml,
    dvc.lock, `*.dvc`, `.gitignore` and outs of stages. Files that Git doesn't track don't count.
    """
    problem = _no_repository(root)
    if problem:
        return GitState(None, None, True, (), f"{problem}, so no commit names the code that made this")
    branch = run_git(root, "symbolic-ref", "--quiet", "--short", "HEAD").stdout.strip() or None
    head = run_git(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if head.returncode != 0:
        return GitState(None, branch, True, (), "the Git repository has no commit yet, so none names this code")
    diff = run_git(root, "diff", "--name-only", "--no-renames", "--no-ext-diff", "--relative", "-z", "HEAD", "--", ".")
    if diff.returncode != 0:
        note = f"git diff failed ({diff.stderr.strip()}), so nobody knows whether the tree is clean"
        return GitState(head.stdout.strip(), branch, True, (), note)
    # Reading the locks is what takes time here, and a tree without a change needs none.
    outs = stage_outs(root) if diff.stdout else frozenset()
    changed = tuple(sorted(path for path in diff.stdout.split("\0") if path and not repro_changes(path, outs)))
    note = ""
    if changed:
        files = "1 tracked file differs" if len(changed) == 1 else f"{len(changed)} tracked files differ"
        note = f"{files} from the commit"
    return GitState(head.stdout.strip(), branch, bool(changed), changed, note)


def _no_repository(root: Path) -> str:
    """Why Git can't answer for this folder; empty when it can."""
    inside = run_git(root, "rev-parse", "--is-inside-work-tree")
    if inside.returncode == NO_GIT:
        return inside.stderr
    if inside.returncode == 0 and inside.stdout.strip() == "true":
        return ""
    if "dubious ownership" in inside.stderr:
        return "Git refuses this folder because another user owns it (see git's safe.directory)"
    return "this is no Git working tree"


def stage_outs(root: Path) -> frozenset[str]:
    """Return the outs of the stages of every dvc.lock, in the tree and in HEAD, relative to the project."""
    tracked = run_git(root, "ls-files", "-z", "--", LOCK_FILE, f"**/{LOCK_FILE}").stdout.split("\0")
    found: set[str] = set()
    for lock in {PurePosixPath(name) for name in (LOCK_FILE, *tracked) if name}:
        pipeline = read_pipeline(root / lock.with_name(PIPELINE_FILE))
        committed = run_git(root, "show", f"HEAD:./{lock}")
        locks = [read_lock(root / lock)]
        if committed.returncode == 0:
            locks.append(_parse_lock(committed.stdout))
        for name, stage in (entry for stages in locks for entry in stages.items()):
            # A stage's paths are relative to its wdir, and that to the file's own folder.
            folder = lock.parent / str(pipeline.get(name.partition("@")[0], {}).get("wdir", "."))
            found |= {posixpath.normpath(folder / str(out["path"])) for out in stage.get("outs") or []}
    return frozenset(found)


def cached_outs(root: Path) -> list[str]:
    """Return what DVC keeps in its cache, and Git must not hold, as patterns of `git ls-files`, sorted.

    Read are the `dvc.yaml` and `.dvc` files themselves: so it is told of every cohort and model, and whatever became of
    locks and ignore rules.
    """
    wanted = (PIPELINE_FILE, f"**/{PIPELINE_FILE}", "*.dvc")
    listed = run_git(root, "ls-files", "-z", "-co", "--exclude-standard", "--", *wanted)
    found: set[str] = set()
    for name in filter(None, listed.stdout.split("\0")):
        path = root / name
        if name.endswith(".dvc"):
            stages = [parse_yaml(path.read_bytes())] if path.is_file() else []
        else:
            stages = list(read_pipeline(path).values())
        for stage in stages:
            folder = PurePosixPath(name).parent / str(stage.get("wdir") or ".")
            outs = (out for kind in ("outs", "metrics", "plots") for out in stage.get(kind) or [])
            found |= {posixpath.normpath(folder / kept) for out in outs if (kept := _cached_path(out))}
    return sorted(f":(glob){ANY_ITEM.sub('*', path)}{end}" for path in found for end in ("", "/**"))


def _cached_path(out: Any) -> str:
    """The path of an out as `dvc.yaml` or a `.dvc` file has it; empty where Git keeps it."""
    if not isinstance(out, dict):
        return str(out)
    if "path" in out:
        return str(out["path"]) if out.get("cache", True) else ""
    path, how = next(iter(out.items()), ("", None))
    return str(path) if not isinstance(how, dict) or how.get("cache", True) else ""


def _parse_lock(text: str) -> Stages:
    try:
        return lock_stages(parse_yaml(text.encode()), LOCK_FILE)
    except BadInput:
        # An unreadable lock in HEAD takes no file off the list: the stricter answer.
        return {}


def repro_changes(path: str, outs: frozenset[str]) -> bool:
    """Return whether a repro itself changes a file, so that a change of it is none of the code.

    Parameters
    ----------
    outs
        Outs of stages, as `stage_outs` gives them.
    """
    pure = PurePosixPath(path)
    if path == PARAMS_FILE or pure.name in (LOCK_FILE, ".gitignore") or pure.suffix == ".dvc":
        return True
    return path in outs or any(str(parent) in outs for parent in pure.parents)


def run_provenance(root: Path, command: Sequence[str], lock_file: Path) -> dict[str, Any]:
    """Return what a training run records of its code and environment, as JSON values.

    Parameters
    ----------
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

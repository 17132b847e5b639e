"""A registered version fetched into any clone, and verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import sha256_of_file, write_json, write_text
from doseledger.gates.model.standing import read_standing
from doseledger.ledger.provenance.dvc_project import fetch_file
from doseledger.ledger.registry.criteria import Reproduction
from doseledger.ledger.registry.reproduce import Comparison, predict_again, this_machine, threads_of
from doseledger.ledger.registry.tag import Version

Tell = Callable[[str], None]
CHECKPOINT_NAME, CARD_NAME, RECORD_NAME = "best.ckpt", "MODEL_CARD.md", "version.json"
# Where recorded predictions are put that a check compares with.
RECORDED = "recorded_predictions"


@dataclass(frozen=True)
class Fetched:
    """A version on disk: its checkpoint, its card, and its record."""

    checkpoint: Path
    card: Path
    record: Path


def fetch_version(root: Path, version: Version, out: Path, tell: Tell) -> Fetched:
    """Fetch a version's checkpoint from cache or remote, check it by its hash, and write card and record beside it.

    Parameters
    ----------
    root
        Any clone of the project; nothing of it needs to be checked out.
    out
        Folder to write; made where it is absent.
    tell
        Called with one line per file.

    Raises
    ------
    NotReady
        If the version is retired, or neither the cache nor a remote has its checkpoint.
    BadInput
        If what came is not what was registered.
    """
    if version.retired is not None:
        raise NotReady(f"{version.name} is retired ({version.retired}); fetch another version")
    wanted = version.record["checkpoint"]
    checkpoint = out / CHECKPOINT_NAME
    _fetch(root, version, wanted["path"], checkpoint)
    found = sha256_of_file(checkpoint)
    if found != wanted["sha256"]:
        checkpoint.unlink()
        raise BadInput(
            f"{version.name}: the checkpoint that came has SHA256 {found[:12]}…, registered was "
            f"{wanted['sha256'][:12]}…; it was changed in the cache or remote, and is deleted here: bring the remote "
            "back from a backup"
        )
    write_text(out / CARD_NAME, write_card(version))
    write_json(out / RECORD_NAME, version.record)
    for name in (CHECKPOINT_NAME, CARD_NAME, RECORD_NAME):
        tell(f"wrote {out / name}")
    return Fetched(checkpoint, out / CARD_NAME, out / RECORD_NAME)


def keep_version(root: Path, version: Version, folder: Path) -> Path:
    """Return a version's checkpoint, fetched once and compared with its hash each time.

    Parameters
    ----------
    folder
        Where fetched versions are kept, by name.

    Raises
    ------
    NotReady, BadInput
        As `fetch_version`.
    """
    checkpoint, wanted = folder / version.name / CHECKPOINT_NAME, version.record["checkpoint"]["sha256"]
    if version.retired is None and checkpoint.is_file() and sha256_of_file(checkpoint) == wanted:
        return checkpoint
    with TemporaryDirectory(dir=_made(folder)) as fresh:
        fetched = fetch_version(root, version, Path(fresh), lambda line: None)
        _made(checkpoint.parent)
        # Whole or not at all: two trainings may fetch it at once.
        return fetched.checkpoint.replace(checkpoint)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_version(
    root: Path, version: Version, fetched: Fetched, cases: Path, reproduction: Reproduction, tell: Tell
) -> list[Comparison]:
    """Predict cases with a fetched version and return how they compare with what was recorded; refuse a difference.

    Parameters
    ----------
    cases
        Folder of cases; those of the version's test set are predicted, the others are told.
    reproduction
        The limit where machine or number of threads are not those that registered it.
    tell
        Called with one line per case.

    Raises
    ------
    NotReady
        If none of the cases was predicted when the version was registered.
    BadInput
        If a prediction differs: in any bit on a machine like the one that registered it, by more than the limit
        elsewhere.

    Notes
    -----
    It predicts with as many threads as the machine that registered it: another number adds in another order.
    """
    recorded = fetched.checkpoint.parent / RECORDED
    names = sorted(path.stem for path in cases.glob("*.npz"))
    known = [name for name in names if _get_prediction(root, version, name, recorded)]
    if not known:
        raise NotReady(
            f"{cases}: none of {len(names)} cases was predicted with {version.name}; give the folder of its test cases "
            f"(`dvc get . data/cases/{version.record['cohort']} --rev {version.name}`, for example)"
        )
    if len(known) < len(names):
        others = ", ".join(name for name in names if name not in known)
        tell(f"{len(names) - len(known)} of {len(names)} cases have no recorded prediction to compare with: {others}")
    before = version.record["reproduced"]
    with threads_of(before["machine"]):
        made = predict_again(fetched.checkpoint, cases, recorded, known, tell)
        same_machine = before["machine"] == this_machine() and before["identical"]
    for comparison in made:
        how = "to the bit" if comparison.identical else f"within {comparison.max_difference_gy:.2g} Gy"
        tell(f"{comparison.case_id}: predicted again, the same {how}")
    wrong = [
        f"{item.case_id} by {item.max_difference_gy:.3g} Gy"
        for item in made
        if (not item.identical if same_machine else item.max_difference_gy > reproduction.max_difference_gy)
    ]
    if wrong:
        limit = "nothing (same machine)" if same_machine else f"{reproduction.max_difference_gy:g} Gy"
        raise BadInput(
            f"{version.name} does not predict what it did: {', '.join(wrong)}, wanted at most {limit}; compare torch "
            f"and packages with {fetched.record.name} ({before['machine']})"
        )
    return made


def _standing(record: Mapping[str, Any]) -> list[str]:
    """The results as one sentence, and the badge; a version of an earlier format holds none."""
    told = read_standing({"details": record})
    return [] if told is None else [told.sentence, "", f"**{told.badge}**", "", *map("- {}".format, told.reasons), ""]


def write_card(version: Version) -> str:
    """Return a version's model card as Markdown."""
    record = version.record
    summary = record["metrics"]["summary"]
    numbers = [name for name in summary if name.startswith(("mae_", "gamma_")) and not name.endswith(("_low", "_high"))]
    stages = ", ".join(f"{given.stage} ({given.by}, {given.at[:10]})" for given in version.promotions) or "none"
    lines = [
        f"# {version.name}",
        "",
        *_standing(record),
        f"Cohort `{record['cohort']}`. Registered by {version.by} at {version.at}. Stages: {stages}.",
        f"Trained with commit `{record['run']['commit']}`, registered at `{record['commit']}`.",
        f"Checkpoint SHA256 `{record['checkpoint']['sha256']}`.",
        "",
    ]
    for part in record["card"]:
        lines += [f"## {part['title']}", "", *(f"- {line}" for line in part["lines"]), ""]
    lines += [f"## Numbers of {record['test_set']['cases']} test cases", "", "| metric | value |", "|---|---|"]
    lines += [f"| `{name}` | {summary[name]:.4g} |" for name in numbers if isinstance(summary[name], (int, float))]
    lines += ["", "## Verdicts", "", "| gate | passed | digest |", "|---|---|---|"]
    lines += [
        f"| {gate} | {'yes' if verdict['ok'] else 'no'} | `{verdict['digest'][:12]}` |"
        for gate, verdict in sorted(record["verdicts"].items())
    ]
    return "\n".join([*lines, ""])


def _get_prediction(root: Path, version: Version, case_id: str, folder: Path) -> bool:
    """Fetch the recorded prediction of a case; False where there is none."""
    try:
        _fetch(root, version, f"{version.record['predictions']['path']}/{case_id}.npz", folder / f"{case_id}.npz")
    except NotReady:
        return False
    return True


def _fetch(root: Path, version: Version, path: str, out: Path) -> None:
    try:
        fetch_file(root, path, version.commit, out)
    except NotReady as error:
        raise NotReady(f"{version.name}: {error}") from error

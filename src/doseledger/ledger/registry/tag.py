"""A registered version as an annotated Git tag, in gto's grammar."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doseledger.core.damage import DAMAGED
from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import to_json
from doseledger.ledger.provenance.git import ask_git
from doseledger.ledger.provenance.stamp import git_state

FORMAT_VERSION = 1
# The line of a tag's message after which its record stands as JSON.
RECORD_LINE = "record:"
NAME = re.compile(r"(?P<model>[A-Za-z0-9][A-Za-z0-9_-]*)@(?P<version>v\d+\.\d+\.\d+)")
STAGE_TAG = re.compile(r"(?P<model>[A-Za-z0-9][A-Za-z0-9_-]*)#(?P<stage>[a-z]+)(#\d+)?")


@dataclass(frozen=True)
class Promotion:
    """A stage that a version was given, by whom and when, with the record of the criteria that it met."""

    stage: str
    tag: str
    by: str
    at: str
    record: dict[str, Any]


@dataclass(frozen=True)
class Version:
    """A version of a model, as its tags tell.

    Parameters
    ----------
    model, version
        Its name, `dose_unet` and `v0.1.0`.
    record
        What the tag's message holds: hashes, metrics, verdicts, model card; empty where another program made the tag.
    promotions
        Stages that it was given, the oldest first.
    retired
        Why it was retired; None while it is not.
    """

    model: str
    version: str
    commit: str
    by: str
    at: str
    record: dict[str, Any]
    promotions: tuple[Promotion, ...] = ()
    retired: str | None = None

    @property
    def name(self) -> str:
        """`MODEL@VERSION`, which is its tag."""
        return f"{self.model}@{self.version}"

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that it holds, in the order that it was given them."""
        return tuple(dict.fromkeys(promotion.stage for promotion in self.promotions))

    def as_dict(self) -> dict[str, Any]:
        """Return the version as plain JSON values."""
        return {
            "name": self.name,
            "commit": self.commit,
            "by": self.by,
            "at": self.at,
            "stages": list(self.stages),
            "retired": self.retired,
            "record": self.record,
        }


def compose_message(headline: str, lines: list[str], record: Mapping[str, Any]) -> str:
    """Return a tag's message: a headline, some lines for a person, and the record as JSON."""
    return "\n".join([headline, "", *lines, "", RECORD_LINE, to_json(record)])


def read_versions(root: Path) -> list[Version]:
    """Return every registered version of every model in a project, the oldest first.

    Raises
    ------
    NotReady
        If there is no Git repository.
    """
    tags = _read_tags(root)
    versions = []
    for tag in tags:
        match = NAME.fullmatch(tag.name)
        if match is None:
            continue
        retired = next((other.text for other in tags if other.name == f"{tag.name}!"), None)
        versions.append(
            Version(
                model=match["model"],
                version=match["version"],
                commit=tag.commit,
                by=tag.by,
                at=tag.at,
                record=_record_of(tag.text),
                promotions=_promotions(tags, match["model"], match["version"], tag.commit),
                retired=None if retired is None else retired.strip().splitlines()[0],
            )
        )
    return versions


def model_origin(root: Path, checkpoint_sha256: str) -> dict[str, Any]:
    """Return what a project knows of a checkpoint and of the code at work, as JSON values.

    Returns
    -------
    dict
        `registered_as`: versions of this checkpoint that are not retired; `commit`, None without one; `dirty`.
    """
    git = git_state(root)
    try:
        versions = read_versions(root)
    except NotReady:
        versions = []
    names = [
        version.name
        for version in versions
        if version.retired is None and version.record.get("checkpoint", {}).get("sha256") == checkpoint_sha256
    ]
    return {"registered_as": names, "commit": git.commit, "dirty": git.dirty}


def find_version(root: Path, name: str) -> Version:
    """Return the version of a name, `MODEL@VERSION`.

    Raises
    ------
    BadInput
        If it is no such name, its tag was made by another program, or says other than the files of its commit.
    NotReady
        If it is not registered.
    """
    if NAME.fullmatch(name) is None:
        raise BadInput(f"{name!r} is no version's name; wanted MODEL@VERSION, dose_unet@v0.1.0 for example")
    versions = read_versions(root)
    found = next((version for version in versions if version.name == name), None)
    if found is None:
        there = ", ".join(version.name for version in versions) or "none"
        raise NotReady(f"{name} is not registered; registered are: {there}. In a clone, `git fetch --tags` may help")
    if found.record.get("format_version") != FORMAT_VERSION:
        raise BadInput(
            f"tag {name} holds no record of `doseledger registry register` (format {FORMAT_VERSION}): another program "
            "made it, and nothing vouches for its files; register the model under another version"
        )
    wrong = _contradictions(root, found)
    if wrong:
        raise BadInput(
            f"tag {name} does not say what its commit holds: {'; '.join(wrong)}. It was not made by `doseledger "
            "registry register`, or moved since: look at who pushed it, and delete it"
        )
    return found


def _contradictions(root: Path, version: Version) -> list[str]:
    """Where a version's record is not that of its name and commit: metrics and verdicts are files of the commit."""
    record = version.record
    said = f"{record.get('model')}@{record.get('version')}"
    wrong = [] if said == version.name else [f"its record is of {said}"]
    if record.get("commit") != version.commit:
        wrong.append(f"its record is of commit {str(record.get('commit'))[:12]}")
    files = {record["metrics"]["path"]: record["metrics"]["summary"]}
    files |= {path: record["verdicts"].get(gate) for gate, path in record["verdict_files"].items()}
    unread = set(record["verdicts"]) - set(record["verdict_files"])
    wrong += [f"no file is named for the verdict {gate}" for gate in sorted(unread)]
    for path, content in sorted(files.items()):
        blob = ask_git(root, "show", f"{version.commit}:./{path}")
        if blob is None or _parse(blob) != content:
            wrong.append(f"{path} {'is not there' if blob is None else 'has other content'}")
    return wrong


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except DAMAGED:
        return None


@dataclass(frozen=True)
class _Tag:
    """An annotated tag of Git."""

    name: str
    commit: str
    by: str
    at: str
    text: str


def _read_tags(root: Path) -> list[_Tag]:
    form = "%00".join(
        (
            "%(refname:short)",
            "%(*objectname)",
            "%(taggername) %(taggeremail)",
            "%(taggerdate:iso-strict)",
            "%(contents)",
        )
    )
    # The zero at the end keeps messages apart, whatever lines they hold.
    listed = ask_git(root, "for-each-ref", "refs/tags", "--sort=creatordate", f"--format={form}%00")
    if listed is None:
        raise NotReady(
            f"{root}: no Git repository, and versions are Git tags; `git init` and a first commit come first"
        )
    fields = listed.split("\0")
    rows = zip(*(fields[start::5] for start in range(5)), strict=False)
    # A tag without a commit of its own is a lightweight one: no message, so nothing that was registered.
    return [_Tag(name.strip(), commit, by, at, text) for name, commit, by, at, text in rows if commit]


def _promotions(tags: list[_Tag], model: str, version: str, commit: str) -> tuple[Promotion, ...]:
    """The stages of a version; a tag of that name by another program judged no criterion, and gives none."""
    found = []
    for tag in tags:
        match = STAGE_TAG.fullmatch(tag.name)
        if match is None or match["model"] != model or tag.commit != commit:
            continue
        record, wanted = _record_of(tag.text), (FORMAT_VERSION, model, version, match["stage"])
        if tuple(record.get(key) for key in ("format_version", "model", "version", "stage")) == wanted:
            found.append(Promotion(match["stage"], tag.name, tag.by, tag.at, record))
    return tuple(found)


def _record_of(text: str) -> dict[str, Any]:
    """The record in a tag's message; empty where there is none."""
    _, found, rest = text.partition(f"\n{RECORD_LINE}\n")
    if not found:
        return {}
    try:
        # What follows the record may be a signature.
        record, _ = json.JSONDecoder().raw_decode(rest.lstrip())
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}

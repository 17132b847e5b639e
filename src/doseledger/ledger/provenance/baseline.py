"""Settings of a run against those before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doseledger.ledger.provenance.dvc_files import parse_yaml
from doseledger.ledger.provenance.git import ask_git
from doseledger.ledger.provenance.recorded import declared_settings
from doseledger.ledger.provenance.stamp import PARAMS_FILE

# How many changes of the settings file are looked through; each costs a fraction of a second.
LOOKED_BACK = 8


@dataclass(frozen=True)
class SettingsChange:
    """What a run's settings are compared with, in a sentence, and each that differs: name, before, now."""

    sentence: str
    rows: tuple[tuple[str, str, str], ...]


def settings_change(root: Path, commit: str | None, model: str, settings: Mapping[str, Any]) -> SettingsChange:
    """Return how a run's settings differ from its parent's.

    Parameters
    ----------
    root
        The project, whose Git history is asked.
    commit
        The commit that was checked out when training began, as the run recorded it.
    settings
        The run's settings by dotted name: the model's own without its name, and seed, lr, fold and repeat.

    Notes
    -----
    The parent is the commit that training began on, as it is for an experiment of DVC: params.yaml there holds what
    the experiment changed. Where nothing differs, the settings were committed first, and the parent is the last commit
    with other settings of this model. History does not change, so the answer belongs to the run; only a shallow clone
    knows less.
    """
    here = None if commit is None else _settings_at(root, commit, model)
    if commit is None or here is None:
        why = "the run names no commit" if commit is None else f"commit {commit[:10]} is not in this repository"
        return SettingsChange(f"The settings before this run are not known: {why}.", ())
    rows = _differences(here, settings)
    if rows:
        return SettingsChange(f"Compared with {PARAMS_FILE} of commit {commit[:10]}, on which training began.", rows)
    log = ask_git(root, "rev-list", f"--max-count={LOOKED_BACK}", commit, "--", PARAMS_FILE) or ""
    for changed in log.split():
        before = _settings_at(root, f"{changed}^", model)
        rows = () if before is None else _differences(before, settings)
        if rows:
            parent = (ask_git(root, "rev-parse", f"{changed}^") or "").strip()
            sentence = f"Committed before training. Compared with commit {parent[:10]}, the last with other settings."
            return SettingsChange(sentence, rows)
    sentence = (
        f"Committed before training; none of the last {LOOKED_BACK} changes of {PARAMS_FILE} changed a setting of "
        f"{model}."
    )
    return SettingsChange(sentence, ())


def _settings_at(root: Path, revision: str, model: str) -> dict[str, Any] | None:
    """A model's settings at a revision, flat; None where there are none."""
    text = ask_git(root, "show", f"{revision}:./{PARAMS_FILE}")
    return None if text is None else declared_settings(parse_yaml(text.encode()), model) or None


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    # A run records the blocks that decide its numbers; how cases are loaded is none of them.
    blocks = {name.partition(".")[0] for name in now}
    names = sorted(name for name in {*before, *now} if name.partition(".")[0] in blocks)
    pairs = [(name, _said(before, name), _said(now, name)) for name in names]
    return tuple(pair for pair in pairs if pair[1] != pair[2])


def _said(settings: Mapping[str, Any], name: str) -> str:
    if name not in settings:
        return "–"
    value = settings[name]
    if isinstance(value, bool):
        return str(value).lower()
    # 1 and 1.0 are one setting.
    return f"{value:g}" if isinstance(value, int | float) else str(value)

"""Files of clinical goals: faults, and conversion to other fractions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from doseledger.core.errors import BadInput
from doseledger.core.files import to_yaml, write_text
from doseledger.core.project.protocol import GoalSet, load_goals, load_protocol
from doseledger.dosimetry.fractionation import convert_goals
from doseledger.dosimetry.goals import lint_goals


def lint_goal_file(path: Path, protocol: Path) -> list[str]:
    """Return everything that is wrong with a file of goals, one sentence each; empty when it is sound.

    Notes
    -----
    A file that can't be read as goals is one sentence too: of several files the rest is still looked at.
    """
    try:
        goals = load_goals(path)
        rules = load_protocol(protocol)
    except BadInput as error:
        return [str(error)]
    return lint_goals(goals, rules)


def convert_goal_file(
    path: Path,
    out: Path,
    n_fractions: int,
    alpha_beta_gy: Mapping[str, float],
    *,
    keep: frozenset[str] = frozenset(),
    from_fractions: int | None = None,
) -> GoalSet:
    """Return the goals of a file for another number of fractions, after writing them to `out`.

    Parameters
    ----------
    path, out
        File to read and file to write; the new set takes the new file's name.
    alpha_beta_gy
        α/β in Gy by structure.
    keep
        Structures whose goals stay as they are.
    from_fractions
        For which they were published; None where their doses are EQD2.

    Raises
    ------
    BadInput
        If a structure is in neither list or in both, one is not in the file, or a goal has no dose of one point.
    """
    if out.resolve() == path.resolve():
        raise BadInput(f"{out} is the file that is read; write the converted goals to another")
    converted = convert_goals(load_goals(path), n_fractions, alpha_beta_gy, keep=keep, from_fractions=from_fractions)
    origin = "EQD2" if from_fractions is None else f"{from_fractions} fractions"
    title = f"{converted.title}, from {origin} to {n_fractions} fractions"
    converted = converted.model_copy(update={"name": out.stem, "title": title})
    write_text(out, goals_as_yaml(converted))
    return converted


def goals_as_yaml(goals: GoalSet) -> str:
    """Return goals as YAML that `load_goals` reads back; what is at its default is left out."""
    # One line a source: a folded one is harder to compare with the paper.
    return to_yaml(goals.model_dump(mode="json", exclude_defaults=True))

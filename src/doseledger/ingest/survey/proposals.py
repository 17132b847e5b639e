"""Names that a survey proposes, marked in a protocol for a person to confirm."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from doseledger.core.errors import BadInput
from doseledger.core.project.protocol import Protocol

# Names of ROIs by structure, each with why it may be it.
Proposals = dict[str, dict[str, str]]
MARK = "PROPOSED: delete wrong names, then this line and the next; the names left are aliases."
# What a survey found against the protocol, for a person to settle; `cohort check` names it until the line is gone.
DOUBT = "# SURVEY: "
# Where in a protocol these lines are put: before the first of these keys.
BEFORE = ("n_fractions", "prescription_gy", "spacing_mm", "structures")
# Columns of a structure's keys and of its names.
KEY_COLUMN, WHY_COLUMN = 4, 40


def read_proposals(survey: Mapping[str, Any], protocol: Protocol) -> Proposals:
    """Return the names that a survey proposes for the structures of a protocol, the most frequent first.

    Parameters
    ----------
    survey
        What `Survey.as_json` gives, and `survey.json` holds.
    protocol
        What the export was held against.

    Raises
    ------
    BadInput
        If the survey was held against another protocol, or is none.
    """
    _check_survey(survey, protocol)
    found = {}
    for row in survey["structures"]:
        names = {
            str(item["roi"]): f"in {item['patients']} of {row['patients']}: {item['why']}" for item in row["proposed"]
        }
        if names:
            found[str(row["structure"])] = names
    return found


def read_doubts(survey: Mapping[str, Any], protocol: Protocol) -> list[str]:
    """Return what a survey found that the protocol itself may have to say otherwise: prescription, organs nobody draws.

    Raises
    ------
    BadInput
        As `read_proposals` does.
    """
    _check_survey(survey, protocol)
    doubts = []
    for row in survey.get("complaints", []):
        if row["kind"] == "prescription":
            found = "; ".join(f"{item['text']} ({item['count']})" for item in row["found"])
            doubts.append(f"{row['sentence']}: {found}")
    for row in survey["structures"]:
        if row["required"] and row["patients"] and not row["found"] and not row["proposed"]:
            doubts.append(f"{row['structure']}: found in 0 of {row['patients']}, and no ROI is like it")
    return [" ".join(doubt.split()) for doubt in doubts]


def _check_survey(survey: Mapping[str, Any], protocol: Protocol) -> None:
    if survey.get("protocol") != protocol.name or not isinstance(survey.get("structures"), list):
        raise BadInput(
            f"the survey was held against {survey.get('protocol')!r}, wanted {protocol.name}; survey the export again, "
            "with --cohort naming the cohort that the new one is to be like"
        )


def with_doubts(text: str, doubts: Sequence[str]) -> str:
    """Return the text of a protocol with what a survey found against it, a comment a line."""
    if not doubts:
        return text
    lines = text.splitlines(keepends=True)
    at = next((i for i, line in enumerate(lines) if line.split(":")[0] in BEFORE), 0)
    return "".join([*lines[:at], *(f"{DOUBT}{doubt}\n" for doubt in doubts), *lines[at:]])


def find_doubts(text: str) -> list[str]:
    """Return what a protocol's text still holds of a survey's findings."""
    return [line.strip().removeprefix(DOUBT) for line in text.splitlines() if line.strip().startswith(DOUBT)]


def with_proposals(text: str, proposals: Proposals) -> str:
    """Return the text of a protocol with names that are proposed, and all else as it is.

    Parameters
    ----------
    text
        YAML of a protocol that proposes none itself.
    """
    if not proposals:
        return text
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedSeq

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 10_000
    content = yaml.load(text)
    for structure in content["structures"]:
        names = CommentedSeq(proposals.get(structure["name"], ()))
        if not names:
            continue
        for index, why in enumerate(proposals[structure["name"]].values()):
            names.yaml_add_eol_comment(" ".join(why.split()), index, column=WHY_COLUMN)
        # Without the line `proposed:` its names must go on with the aliases' list.
        structure.setdefault("aliases", None)
        place = list(structure).index("aliases") + 1
        structure.insert(place, "proposed", names)
        structure.yaml_set_comment_before_after_key("proposed", before=MARK, indent=KEY_COLUMN)
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()

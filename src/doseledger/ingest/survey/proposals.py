"""Names that a survey proposes, marked in a protocol for a person to confirm."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from doseledger.core.errors import BadInput
from doseledger.core.protocol import Protocol

# Names of ROIs by structure, each with why it may be it.
Proposals = dict[str, dict[str, str]]
MARK = "PROPOSED: delete wrong names, then this line and the next; the names left are aliases."
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
    if survey.get("protocol") != protocol.name or not isinstance(survey.get("structures"), list):
        raise BadInput(
            f"the survey was held against {survey.get('protocol')!r}, wanted {protocol.name}; survey the export again, "
            "with --cohort naming the cohort that the new one is to be like"
        )
    found = {}
    for row in survey["structures"]:
        names = {
            str(item["roi"]): f"in {item['patients']} of {row['patients']}: {item['why']}" for item in row["proposed"]
        }
        if names:
            found[str(row["structure"])] = names
    return found


def with_proposals(text: str, proposals: Proposals) -> str:
    """Return the text of a protocol with names that are proposed, and all else as it is.

    Parameters
    ----------
    text
        YAML of a protocol that proposes none itself.
    proposals
        Names by structure, and why.
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

"""Audit entries as readable lines, filtered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SHORT_HASH = 12
LINE_CHARACTERS = 200


@dataclass(frozen=True)
class Filter:
    """Which entries are asked for; None asks for nothing.

    Parameters
    ----------
    who
        Part of the name or address, in any case.
    since, until
        Days, YYYY-MM-DD (UTC), both included.
    about
        Text that stands anywhere in the entry: a path, a hash, a case, a model's version.
    """

    command: str | None = None
    who: str | None = None
    since: str | None = None
    until: str | None = None
    status: str | None = None
    about: str | None = None


def matches(entry: Mapping[str, Any], wanted: Filter) -> bool:
    """Return whether an entry is one of those asked for.

    Examples
    --------
    >>> matches({"command": "train", "at": "2026-03-01T10:00:00+00:00"}, Filter(command="train", until="2026-03-01"))
    True
    """
    day = str(entry.get("at", ""))[:10]
    person = " ".join(str(part) for part in (entry.get("who") or {}).values() if part)
    return (
        (wanted.command is None or entry.get("command") == wanted.command)
        and (wanted.who is None or wanted.who.lower() in person.lower())
        and (wanted.since is None or day >= wanted.since)
        and (wanted.until is None or day <= wanted.until)
        and (wanted.status is None or entry.get("status") == wanted.status)
        and (wanted.about is None or wanted.about in json.dumps(entry, ensure_ascii=False))
    )


def describe_entry(entry: Mapping[str, Any]) -> str:
    """Return an entry as one line, and one more for each file, verdict and fact in it."""
    who = entry.get("who") or {}
    person = " ".join(part for part in (who.get("name"), f"<{who['email']}>" if who.get("email") else None) if part)
    what = f"{entry.get('command', '')} {entry.get('event', '')}".strip()
    ending = f": {entry['status']} after {entry['seconds']} s" if "status" in entry else ""
    lines = [f"{entry['n']:>5} {str(entry.get('at', ''))[:19]} {person or 'unknown'}: {what}{ending}"]
    if entry.get("error"):
        lines.append(f"      {str(entry['error']).splitlines()[0][:LINE_CHARACTERS]}")
    for kind, verb in (("inputs", "read"), ("outputs", "wrote")):
        for item in (entry.get(kind) or {}).values():
            lines.append(f"      {verb} {item['path']} {_short(item['sha256'])}")
    if entry.get("reads"):
        lines.append(f"      opened cases: {entry['reads']}")
    for verdict in entry.get("verdicts") or []:
        result = "passed" if verdict["ok"] else "failed"
        lines.append(f"      {verdict['token']}: {result}, digest {_short(verdict['digest'])}")
    for name in ("registered", "promoted", "retired", "signed_off"):
        if name in entry:
            lines.append(f"      {name} {json.dumps(entry[name], sort_keys=True, ensure_ascii=False)}")
    return "\n".join(lines)


def _short(sha256: str | None) -> str:
    return sha256[:SHORT_HASH] if sha256 else "absent"

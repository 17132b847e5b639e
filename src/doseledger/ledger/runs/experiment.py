"""A dated note of an experiment: hypothesis, criteria, results."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from doseledger.core.damage import refuse_damage
from doseledger.core.errors import BadInput
from doseledger.core.files import parse_yaml, read_yaml, write_text
from doseledger.core.text.sheet import MISSING, format_number
from doseledger.ledger.provenance.recorded import declared_settings
from doseledger.ledger.provenance.stamp import PARAMS_FILE
from doseledger.ledger.runs.files import GATES
from doseledger.ledger.runs.listing.query import columns_in, parse_condition
from doseledger.ledger.runs.listing.rows import SHORT_NAMES, RunRow
from doseledger.ledger.runs.listing.tables import HEADLINE
from doseledger.ledger.runs.prerun import Readiness

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
CRITERION = re.compile(r"^- `(?P<text>[^`]+)`\s*$", re.MULTILINE)
SETTINGS = re.compile(r"^```yaml\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
BEGIN, END = "<!-- results: written by `doseledger experiment fill`, never by hand -->", "<!-- end of results -->"
TO_WRITE = "*(write this before the run)*"


@dataclass(frozen=True)
class Plan:
    """What a person wants to find out.

    Parameters
    ----------
    name
        Of the note and of DVC's experiment: small letters, digits and hyphens.
    hypothesis
        What is expected and why; empty leaves the place to be filled in.
    criteria
        Conditions on the run that decide, `mae_gy < 3`; written down before there is a number.
    """

    name: str
    model: str
    hypothesis: str = ""
    criteria: tuple[str, ...] = ()


def new_note(folder: Path, plan: Plan, readiness: Readiness, root: Path, today: date) -> Path:
    """Return the note that was written: hypothesis, criteria, settings, seeds, environment, and a place for results.

    Parameters
    ----------
    readiness
        Code and environment that the run will have.
    today
        The date in its name.

    Raises
    ------
    NotReady
        If a run begun now would not count: a dirty tree, for example.
    BadInput
        If the name is none, the model is unknown, a criterion is no condition, or the note is there already.
    """
    if not NAME.fullmatch(plan.name):
        raise BadInput(f"experiment {plan.name!r}: wanted small letters, digits and hyphens, like dvh-term-01")
    params = read_yaml(root / PARAMS_FILE)
    if plan.model not in params:
        raise BadInput(f"{PARAMS_FILE} has no model {plan.model!r}; it trains {', '.join(params.get('models', []))}")
    for criterion in plan.criteria:
        _refuse_no_condition(criterion)
    readiness.refuse_unless_ready()
    path = folder / f"{today.isoformat()}-{plan.name}.md"
    if path.exists():
        raise BadInput(f"{path} is there already; a note is written once, choose another name")
    write_text(path, _text(plan, readiness, params, today))
    return path


def _refuse_no_condition(criterion: str) -> None:
    if "`" in criterion or "\n" in criterion:
        raise BadInput(f"criterion {criterion!r}: a line without backticks, like mae_gy < 3")
    # Which metrics there are is known after the run: any name will do now, but nothing but a comparison.
    parse_condition(criterion, columns_in(criterion))


def _text(plan: Plan, readiness: Readiness, params: Mapping[str, Any], today: date) -> str:
    made = readiness.provenance
    packages = ", ".join(f"{name} {version}" for name, version in made["packages"].items())
    criteria = "\n".join(f"- `{criterion}`" for criterion in plan.criteria) or TO_WRITE
    seeds = ", ".join(f"{name} {value}" for name, value in readiness.seeds.items())
    return f"""# {plan.name}

{today.isoformat()} · model `{plan.model}` on cohort `{params.get("cohort")}`
Code: commit `{made["git"]["commit"]}`, clean tree

## Hypothesis

{plan.hypothesis or TO_WRITE}

## Criteria

Decided before the run; each is a condition as in `doseledger runs list --where`.

{criteria}

## Settings

As `{PARAMS_FILE}` had them when this note was made; what the run changes stands under Results.

```yaml
{_yaml(declared_settings(params, plan.model))}```

## Seeds and environment

- seeds: {seeds}
- Python {made["python"]} on {made["platform"]}; {packages}
- lock of packages: SHA256 `{made["lock_sha256"]}`

## Run

    doseledger experiment ready && dvc exp run --name {plan.name}
    doseledger experiment fill THIS-FILE --run {plan.name}

## Results

{BEGIN}
Not run yet.
{END}

## Conclusion

*(after the run: which criteria are met, what follows)*
"""


def _yaml(value: Mapping[str, Any]) -> str:
    from ruamel.yaml import YAML

    buffer = io.StringIO()
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.dump(dict(value), buffer)
    return buffer.getvalue()


def fill_note(note: Path, row: RunRow) -> None:
    """Write a run's results into its note, in place of what stood there; twice is the same as once.

    Raises
    ------
    BadInput
        If the note has no place for results, or the run has no metrics.
    """
    with refuse_damage(lambda why: BadInput(f"{note}: can't be read ({why}); `doseledger experiment new` makes one")):
        text = note.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise BadInput(f"{note}: no place for results; wanted one line {BEGIN!r} and after it one {END!r}")
    if not row.metrics:
        raise BadInput(f"run {row.id} ({', '.join(row.where)}) has no metrics: {row.status}. Fill in when it is done")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    write_text(note, f"{head}{BEGIN}\n{_results(row, head)}{END}{tail}")


def _results(row: RunRow, head: str) -> str:
    criteria = [match["text"] for match in CRITERION.finditer(head)]
    changed = _changed_settings(row, head)
    gates = ", ".join(f"{gate} {_word(row.verdicts.get(gate))}" for gate in dict.fromkeys((*GATES, *row.verdicts)))
    tree = {True: "**DIRTY TREE**", False: "clean tree", None: "tree unknown"}[row.dirty]
    # Places come and go (a branch moves, an experiment is removed): the id is what stays.
    lines = [
        f"Run `{row.id}` of `{row.model}` on `{row.cohort}`: {row.status}.",
        f"Code: commit `{row.commit[:10] or 'unknown'}`, {tree}.",
        f"Gates: {gates}.",
        "",
        "| Criterion | Found | Verdict |",
        "|---|---|---|",
        *(_criterion(criterion, row) for criterion in criteria),
        "",
        "| Metric | Value | 95 % interval |",
        "|---|---:|---|",
        *(_metric(name, row.metrics) for name in _shown(row, criteria)),
        "",
        "Settings changed since the note: " + (", ".join(changed) if changed else "none") + ".",
    ]
    if not criteria:
        lines[4:6] = ["No criterion was written down before the run.", ""]
    return "\n".join(lines) + "\n"


def _word(verdict: bool | None) -> str:
    return {True: "passed", False: "**FAILED**", None: "not judged"}[verdict]


def _criterion(criterion: str, row: RunRow) -> str:
    columns = row.columns()
    names = [name for name in columns_in(criterion) if name in columns]
    found = ", ".join(f"{name} = {_plain(columns[name])}" for name in names)
    try:
        met = parse_condition(criterion, columns)(columns)
    except BadInput as error:
        return f"| `{criterion}` | {error} | not judged |"
    return f"| `{criterion}` | {found} | {'met' if met else '**missed**'} |"


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _shown(row: RunRow, criteria: Sequence[str]) -> list[str]:
    asked = [SHORT_NAMES.get(name, name) for text in criteria for name in columns_in(text)]
    names: Iterable[str] = dict.fromkeys([*asked, *HEADLINE, "n_cases"])
    return [name for name in names if isinstance(row.metrics.get(name), (int, float))]


def _metric(name: str, metrics: Mapping[str, Any]) -> str:
    value, low, high = (metrics.get(f"{name}{end}") for end in ("", "_low", "_high"))
    interval = (
        f"{format_number(low, 3)} to {format_number(high, 3)}" if low is not None and high is not None else MISSING
    )
    shown = str(value) if isinstance(value, int) else format_number(value, 3)
    return f"| {name} | {shown} | {interval} |"


def _changed_settings(row: RunRow, head: str) -> list[str]:
    match = SETTINGS.search(head)
    if match is None:
        return ["unknown: the note has lost its block of settings"]
    noted = parse_yaml(match["text"], "the note's block of settings (bring it back with Git)")
    noted = noted if isinstance(noted, Mapping) else {}
    names = [name for name in noted if name in row.settings and row.settings[name] != noted[name]]
    return [f"`{name}` {noted[name]} → {row.settings[name]}" for name in names]

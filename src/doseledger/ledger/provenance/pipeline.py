"""Where dvc.yaml says that things lie: its stages with their names filled in, at any revision, without loading DVC."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from doseledger.core.errors import BadInput, NotReady
from doseledger.ledger.provenance.stamp import PIPELINE_FILE

VARIABLE = re.compile(r"\$\{\s*([^}\s]+)\s*\}")
OUT_KINDS = ("outs", "metrics", "plots")


@dataclass(frozen=True)
class StageFiles:
    """What one stage reads and writes: paths relative to the project, names of variables filled in."""

    deps: tuple[str, ...]
    outs: tuple[str, ...]

    def out(self, name: str) -> str:
        """Return the out that is called so, or ends so (`.html`).

        Raises
        ------
        NotReady
            If there is none, or more than one.
        """
        found = [path for path in self.outs if PurePosixPath(path).name == name or PurePosixPath(path).suffix == name]
        if len(found) != 1:
            raise NotReady(f"wanted one out {name} of a stage, found {found} among {list(self.outs)}; look at dvc.yaml")
        return found[0]


def resolve_stages(pipeline: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, StageFiles]:
    """Return what each stage reads and writes, `train@dose_unet` for one that `foreach` makes.

    Parameters
    ----------
    pipeline
        Content of dvc.yaml.
    params
        Content of params.yaml, whose values stand in `${…}`.

    Raises
    ------
    BadInput
        If a variable is in neither.

    Notes
    -----
    DVC's own resolver costs its import and needs a checkout; this one reads what our dvc.yaml uses of it (`${key}`,
    `${a.b}`, `${item}`, `foreach` over a list or a mapping) out of any revision. A test holds the two together.
    """
    found: dict[str, StageFiles] = {}
    for name, stage in (pipeline.get("stages") or {}).items():
        if "foreach" not in stage:
            found[name] = _stage_files(stage, params)
            continue
        for key, item in _items(stage["foreach"], params):
            context = {**params, "item": item, "key": key}
            found[f"{name}@{key}"] = _stage_files(stage["do"], context)
    return found


def _items(foreach: Any, params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    value = _look_up(VARIABLE.fullmatch(foreach), params) if isinstance(foreach, str) else foreach
    if isinstance(value, Mapping):
        yield from ((str(key), item) for key, item in value.items())
    elif isinstance(value, list):
        yield from ((str(item), item) for item in value)
    else:
        raise BadInput(f"{PIPELINE_FILE}: foreach {foreach!r} is neither a list nor a mapping")


def _stage_files(stage: Mapping[str, Any], context: Mapping[str, Any]) -> StageFiles:
    outs = [entry for kind in OUT_KINDS for entry in stage.get(kind) or []]
    return StageFiles(
        deps=tuple(_path(entry, context) for entry in stage.get("deps") or []),
        outs=tuple(_path(entry, context) for entry in outs),
    )


def _path(entry: Any, context: Mapping[str, Any]) -> str:
    # An out with options is a mapping of its path to them.
    text = next(iter(entry)) if isinstance(entry, Mapping) else str(entry)
    return VARIABLE.sub(lambda match: str(_look_up(match, context)), text)


def _look_up(match: re.Match[str] | None, context: Mapping[str, Any]) -> Any:
    value: Any = context
    for part in match.group(1).split(".") if match else [""]:
        if not isinstance(value, Mapping) or part not in value:
            name = match.group(1) if match else "its foreach"
            raise BadInput(f"{PIPELINE_FILE} asks for {name!r}, which the settings do not have")
        value = value[part]
    return value

"""The decorator that records a command in the audit log as it begins and ends."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from doseledger.cli.shared import project
from doseledger.core.errors import DoseledgerError
from doseledger.core.project.layout import Machine, VerdictPaths, main_root

if TYPE_CHECKING:
    from doseledger.ledger.audit.recording import Footprint

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def this_machine() -> Machine:
    """Return the paths that belong to this machine for the project at work."""
    return Machine(main_root())


def audited(
    name: str,
    *,
    inputs: tuple[str, ...] = (),
    outputs: tuple[str, ...] = (),
    reads: str = "",
    cohort: str | None = None,
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Return a decorator that records a command in the audit log as it begins and as it ends.

    Parameters
    ----------
    name
        The command as a person types it, without the program's name.
    inputs, outputs
        Names of paths that it reads and writes: of its arguments, where absent of the layout of the model or the
        cohort (`out|cases` where the layout has another name); what neither has is left out.
    reads
        Which cases' data it opens, in words; or the name of the argument that says it.
    cohort
        The cohort of a command that takes none.
    """

    def decorate(command: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @functools.wraps(command)
        def recorded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            from doseledger.ledger.audit.recording import Footprint

            places = _places({"cohort": cohort, **kwargs})
            footprint = Footprint(
                command=name,
                arguments={key: value for key, value in kwargs.items() if value is not None},
                inputs=_paths(kwargs, inputs, places),
                outputs=_paths(kwargs, outputs, places),
                reads=str(kwargs.get(reads, reads) or ""),
            )
            with recorded_as(footprint):
                return command(*args, **kwargs)

        # A test holds these against the command line.
        recorded.__dict__["audited_as"] = (name, (*inputs, *outputs))
        return recorded

    return decorate


@contextmanager
def recorded_as(footprint: Footprint) -> Iterator[None]:
    """Record what is done meanwhile as one command, and keep the log's head under its Git ref."""
    from doseledger.ledger.audit.anchors import keep_head
    from doseledger.ledger.audit.recording import record_command

    machine = this_machine()
    try:
        with record_command(machine.audit_log, Path.cwd(), footprint):
            yield
    finally:
        keep_head(machine.root, machine.audit_log)


def _places(arguments: dict[str, Any]) -> list[Any]:
    """The layouts that a command's paths are looked up in: its model's, its cohort's; none outside a project."""
    try:
        layout = project(arguments.get("cohort")).layout
    except DoseledgerError:
        return []
    model = arguments.get("model")
    return [layout.model(str(model)), layout] if model else [layout]


def _paths(arguments: dict[str, Any], names: tuple[str, ...], places: list[Any]) -> dict[str, Path]:
    found = {}
    for name in names:
        argument, _, attribute = name.partition("|")
        value = arguments.get(argument)
        if value is None:
            value = next(filter(None, (_of(place, attribute or argument) for place in places)), None)
        if value is not None:
            found[argument] = Path(value)
    return found


def _of(place: Any, attribute: str) -> Path | None:
    try:
        value = getattr(place, attribute, None)
    except DoseledgerError:
        # A cohort that is not there: the command itself says so.
        return None
    return value.token if isinstance(value, VerdictPaths) else value

"""Public names of a package, loaded when they are first asked for (PEP 562)."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy_names(package: str, /, **modules: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and `__dir__` of a package that exports names of the modules below it.

    Importing the package loads none of them. Our own code imports from the modules: the walk over the code behind a
    result (`core.code`) does not look behind a name that is loaded late.

    Parameters
    ----------
    package
        Its `__name__`.
    modules
        The names of each module, separated by spaces; a module of a package below is written `gamma__map`.
    """
    home = {name: module.replace("__", ".") for module, names in modules.items() for name in names.split()}

    def load(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{home[name]}"), name)

    return load, lambda: sorted(home)

"""Which names a file can have in an archive: paths below some folder, on any machine, no two of which meet there."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

from doseledger.core.errors import BadInput

# What Windows gives to devices, and characters that one of the usual file systems does not take.
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
UNFIT = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')


def check_names(names: Iterable[str], where: str) -> None:
    """Do nothing if every name is a path below some folder, on any machine, and no two of them meet there.

    Raises
    ------
    BadInput
        Naming the path: absolute, reaching out of its folder, not portable, there twice, or equal to another but for
        the case of its letters; or a file where another path has a folder.
    """
    seen: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name in names:
        fault = _fault(name)
        if fault:
            raise BadInput(f"{where}: {name!r} {fault}; it is refused, nothing was written")
        folded = _folded(name)
        if folded in seen:
            other = seen[folded]
            kind = "is there twice" if other == name else f"and {other!r} are one file where case does not count"
            raise BadInput(f"{where}: {name!r} {kind}; rename one")
        seen[folded] = name
        for parent in PurePosixPath(name).parents:
            folders.setdefault(_folded(str(parent)), name)
    for folded, name in seen.items():
        if folded in folders:
            raise BadInput(
                f"{where}: {name!r} is a file, but {folders[folded]!r} needs a folder of that name; rename one"
            )


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _fault(name: str) -> str:
    parts = name.split("/")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "is an absolute path"
    if ".." in parts:
        return "reaches out of its folder"
    if not name.isprintable() or not _is_unicode(name):
        return "holds a character that is no text"
    if not name or "" in parts or "." in parts:
        return "is not a plain path (an empty or '.' part)"
    if UNFIT.search(name):
        return "holds a character that not every file system takes"
    if any(part[-1] in ". " or RESERVED.fullmatch(part) for part in parts):
        return "has a part that Windows does not take as a name"
    return ""


def _is_unicode(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        # A file name that is no UTF-8 comes from the system with lone surrogates in it.
        return False
    return True

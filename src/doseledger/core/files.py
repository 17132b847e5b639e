"""Files that are whole or absent: atomic writes, SHA256, JSON and YAML."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from doseledger.core.damage import refuse_damage
from doseledger.core.errors import BadInput, NotReady

CHUNK_BYTES = 1 << 20
# A ZIP entry needs a date: a fixed one, so that equal content always gives equal bytes.
ZIP_DATE = (1980, 1, 1, 0, 0, 0)
# Aliases of YAML written out in full: what stands for more than this many values was made to hang whatever walks it.
MOST_VALUES = 1_000_000


# What a disk refuses: no data are at fault, and the same command goes on once it is mended.
DISK_FAULTS = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the quota of the disk is used up; free some space, or ask for more",
    errno.EFBIG: "the disk takes no file so large; use another one",
    errno.EROFS: "the disk is mounted read-only; mount it for writing, or work in another folder",
    errno.EACCES: "there is no right to write there; mend the rights of the folder",
    errno.EPERM: "there is no right to write there; mend the rights of the folder",
}
# Files that take their names together, by target: {} within `all_or_none`, else None.
_TOGETHER: ContextVar[dict[Path, Path] | None] = ContextVar("together", default=None)


def disk_fault(error: OSError) -> str:
    """Return what is wrong with the disk and what to do, where that is why a file could not be written; else nothing.

    Examples
    --------
    >>> disk_fault(OSError(errno.ENOSPC, "No space left on device"))
    'the disk is full; free some space'
    >>> disk_fault(FileNotFoundError(errno.ENOENT, "No such file"))
    ''
    """
    return DISK_FAULTS.get(error.errno or 0, "")


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` to write to; it takes the target's name only when the block ends well.

    A full disk or a kill leaves the old file as it was. Replacing instead of writing in place also keeps a
    file that DVC hard-linked into its cache untouched.

    Raises
    ------
    NotReady
        If the disk is full or read-only, naming the file.
    """
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    together, is_kept = _TOGETHER.get(), False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield part
        if together is None:
            os.replace(part, target)
        else:
            together[target] = part
            is_kept = True
    except OSError as error:
        _refuse_unwritten(target, error)
        raise
    finally:
        if not is_kept:
            _remove(part)


@contextmanager
def all_or_none() -> Iterator[None]:
    """Let all files that are written within take their names when the block ends well, and none if it doesn't.

    Within it a file can't be read back: it lies under its name only after the block. One within another joins it.

    Raises
    ------
    NotReady
        If the disk is full or read-only.
    """
    if _TOGETHER.get() is not None:
        yield
        return
    parts: dict[Path, Path] = {}
    token = _TOGETHER.set(parts)
    try:
        yield
        for target, part in parts.items():
            try:
                os.replace(part, target)
            except OSError as error:
                _refuse_unwritten(target, error)
                raise
    finally:
        _TOGETHER.reset(token)
        for part in parts.values():
            _remove(part)


def _refuse_unwritten(target: Path, error: OSError) -> None:
    """Say so where the disk refused a file; an error of another file stays as it is."""
    fault, name = disk_fault(error), error.filename
    if fault and (name is None or Path(str(name)).parent in (target.parent, *target.parents)):
        raise NotReady(
            f"{target}: can't be written: {fault}, and run the command again. What was there before is untouched"
        ) from error


def _remove(part: Path) -> None:
    # Where nothing can be written there is nothing to remove either.
    with suppress(OSError):
        part.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write text atomically, UTF-8, as given."""
    with atomic_path(target) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_stored_zip(target: Path, members: Mapping[str, bytes]) -> None:
    """Write members as an uncompressed ZIP, sorted by name, with fixed dates: equal members give equal bytes.

    Parameters
    ----------
    target
        The archive; written atomically.
    members
        Content by name; names use `/` between folders.

    Notes
    -----
    Stored and not deflated: reading a slice from it costs what reading a file costs, and no version of zlib can
    change the bytes.
    """
    with atomic_path(target) as part, zipfile.ZipFile(part, "w", compression=zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, date_time=ZIP_DATE)
            # ZipInfo takes the system of the machine that writes: 3 (Unix) everywhere, for the same bytes everywhere.
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, members[name])


def sha256_of_bytes(data: bytes) -> str:
    """Return the SHA256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the SHA256 of a file's content, in hex.

    Raises
    ------
    BadInput
        If it is there and can't be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
    except FileNotFoundError:
        raise
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise BadInput(f"{path}: can't be read ({why}); mend its rights or its disk, and run it again") from error
    return digest.hexdigest()


def sha256_of_json(value: Any) -> str:
    """Return the SHA256 of a JSON value in canonical form: sorted keys, no white space."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return sha256_of_bytes(text.encode())


def _without_nan(value: Any) -> Any:
    # JSON has no NaN: a number that could not be had is null, as every reader expects.
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return _without_nan(value.item())
    return value


def to_json(value: Any) -> str:
    """Return indented JSON with sorted keys and a final newline; NaN and infinities become null."""
    return json.dumps(_without_nan(value), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(target: Path, value: Any) -> None:
    """Write a value as JSON, atomically; the same value always gives the same bytes."""
    write_text(target, to_json(value))


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises
    ------
    BadInput
        If the file is absent or is no JSON.
    """
    with refuse_damage(lambda reason: BadInput(_unreadable(path, "JSON", reason))):
        return json.loads(path.read_text(encoding="utf-8"))


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file that holds a mapping.

    Raises
    ------
    BadInput
        If the file is absent, is no JSON, or holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise BadInput(
            f"{path}: wanted a mapping, found {type(content).__name__}; write it anew, or check it out again"
        )
    return content


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML 1.2 file as plain dicts and lists.

    Raises
    ------
    BadInput
        If the file is absent, or as `parse_yaml`.
    """
    with refuse_damage(lambda reason: BadInput(_unreadable(path, "YAML", reason))):
        text = path.read_text(encoding="utf-8")
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Return the content of YAML 1.2 as plain dicts and lists.

    Parameters
    ----------
    where
        How it is called in messages.

    Raises
    ------
    BadInput
        If it is no YAML, or its aliases stand for more than a million values.

    Notes
    -----
    ruamel.yaml and not PyYAML: YAML 1.1 reads `1e-05`, which DVC writes, as a string.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    with refuse_damage(lambda reason: BadInput(f"{where}: not valid YAML ({reason})")):
        try:
            value = YAML(typ="safe", pure=True).load(text)
        except YAMLError as error:
            raise BadInput(f"{where}: not valid YAML ({error})") from error
        if _written_out(value, {}) > MOST_VALUES:
            raise BadInput(
                f"{where}: not valid YAML here: its aliases stand for more than {MOST_VALUES} values, or for "
                "themselves; write them out"
            )
    return value


def to_yaml(value: Any) -> str:
    """Return plain dicts and lists as YAML that `read_yaml` reads back, lists indented, no line folded."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 10_000
    stream = io.StringIO()
    yaml.dump(value, stream)
    return stream.getvalue()


def _unreadable(path: Path, form: str, reason: str) -> str:
    return f"{path}: no such file" if reason == "no such file" else f"{path}: not valid {form} ({reason})"


def _written_out(value: Any, known: dict[int, float]) -> float:
    """How many values a tree holds once its aliases are written out; infinite where one holds itself."""
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        # Until its own count is known, whoever meets it again is inside it.
        known[id(value)] = math.inf
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_written_out(part, known) for part in parts)
    return known[id(value)]

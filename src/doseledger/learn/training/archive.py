"""Archives of tensors and plain values, read without code; digests of content."""

from __future__ import annotations

import hashlib
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from doseledger.core.damage import shorten
from doseledger.core.errors import BadInput

# Four billion weights of four bytes; a network of ours has some millions.
MOST_BYTES = 1 << 34
# Everything but the tensors' values: settings, names of cases and layers.
MOST_RECORD_BYTES = 1 << 26
RECORD = "/data.pkl"
# All that a record of tensors and plain values names. Torch lets more by that runs no code, a `bytearray` of any size
# for one.
NAMED = frozenset({"torch._utils _rebuild_tensor_v2", "collections OrderedDict"})
STORAGES = ("torch ", "Storage")
# Aliases within a record cost nothing to write and may stand for any number of values.
MOST_VALUES = 1_000_000


def read_archive(path: Path) -> Any:
    """Return what `torch.save` wrote of tensors and plain values.

    Raises
    ------
    BadInput
        If it is too large, packed so that it would grow, or names anything that is no tensor and no plain value.

    Notes
    -----
    Whatever else damage raises is left to the caller, who knows whose file it is.
    """
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise BadInput(f"{path}: {size} bytes, wanted at most {MOST_BYTES}; this is no checkpoint of ours")
    with zipfile.ZipFile(path) as archive:
        _refuse_packed(path, archive.infolist())
        records = [info for info in archive.infolist() if info.filename.endswith(RECORD)]
        if len(records) != 1 or records[0].file_size > MOST_RECORD_BYTES:
            raise BadInput(f"{path}: wanted one record of at most {MOST_RECORD_BYTES} bytes; copy or make it again")
        _refuse_strangers(path, archive.read(records[0]))
    return torch.load(path, map_location="cpu", weights_only=True)


def _refuse_packed(path: Path, members: list[zipfile.ZipInfo]) -> None:
    packed = [shorten(info.filename) for info in members if info.compress_type != zipfile.ZIP_STORED]
    if packed or sum(info.file_size for info in members) > path.stat().st_size:
        what = f"its member {packed[0]} is compressed" if packed else "its members say they are larger than itself"
        raise BadInput(f"{path}: {what}, which no checkpoint of ours is; it could be made to fill the memory")


def _refuse_strangers(path: Path, record: bytes) -> None:
    for opcode, argument, _ in pickletools.genops(record):
        if "GLOBAL" not in opcode.name and opcode.name != "INST":
            continue
        name = str(argument)
        if name not in NAMED and not (name.startswith(STORAGES[0]) and name.endswith(STORAGES[1])):
            raise BadInput(
                f"{path}: names {shorten(name)!r}, wanted tensors and plain values alone; it is not a checkpoint "
                "of ours, or was made to run code: don't open it with another program"
            )


def digest_of(content: Any, where: object = "checkpoint") -> str:
    """Return the SHA256 of tensors and plain values: names, types, shapes and every value; order of keys is none.

    Parameters
    ----------
    content
        Tensors, numbers, text, and mappings and lists of them.
    where
        What holds it, for the message.

    Raises
    ------
    BadInput
        If it holds anything else, or a tensor that stands for more values than it stores.

    Examples
    --------
    >>> digest_of({"a": 1, "w": torch.zeros(2)}) == digest_of({"w": torch.zeros(2), "a": 1})
    True
    >>> digest_of([torch.zeros(2)]) == digest_of([torch.zeros(2, 1)])
    False
    """
    digest = hashlib.sha256()
    for number, part in enumerate(_parts(content, where)):
        if number > MOST_VALUES:
            raise BadInput(f"{where}: stands for more than {MOST_VALUES} values, as no checkpoint of ours does")
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any, where: object) -> Iterator[Any]:
    if isinstance(value, Tensor):
        plain = value.detach().cpu()
        if plain.layout != torch.strided or plain.numel() * plain.element_size() > plain.untyped_storage().nbytes():
            raise BadInput(f"{where}: a tensor of shape {tuple(plain.shape)} stores fewer values than it stands for")
        yield f"tensor {plain.dtype} {tuple(plain.shape)};".encode()
        yield plain.contiguous().reshape(-1).view(torch.uint8).numpy().data
    elif isinstance(value, dict):
        yield f"mapping {len(value)};".encode()
        for key in sorted(value, key=repr):
            yield f"{key!r}:".encode()
            yield from _parts(value[key], where)
    elif isinstance(value, (list, tuple)):
        yield f"list {len(value)};".encode()
        for item in value:
            yield from _parts(item, where)
    elif value is None or isinstance(value, (bool, int, float, str)):
        yield f"{value!r};".encode()
    else:
        raise BadInput(f"{where}: holds a {type(value).__name__}, wanted tensors and plain values alone")

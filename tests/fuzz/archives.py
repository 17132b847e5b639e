"""Damaged arrays and archives: NPZ, checkpoints, bundles."""

from __future__ import annotations

import io
import json
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.damage import damage_bytes, damage_json
from fuzz.kinds import Kind, Reader, Spoilt, Told, rewrite, silent

from doseledger.core.case import Case, map_member, read_meta, write_npz
from doseledger.core.files import sha256_of_file
from doseledger.evaluate.files.case import describe_case
from doseledger.evaluate.files.gamma import read_dose_file
from doseledger.evaluate.predictions import load_prediction, load_samples, read_seen
from doseledger.gates.drift.stacks import read_stack
from doseledger.learn.training.checkpoint import load_checkpoint, model_of
from doseledger.learn.training.checkpoint import read_seen as seen_of_checkpoint
from doseledger.ledger.bundle.pack import pack
from doseledger.ledger.bundle.record import Order
from doseledger.ledger.bundle.rehydrate import rehydrate
from doseledger.ledger.bundle.verify import verify_bundle
from doseledger.parity.arrays import array_heads, read_member
from doseledger.parity.check import check_data_set
from doseledger.parity.contract import load_contract


class Payload:
    """Makes a folder as it is unpickled: were it ever run, the watch would see it."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("mkdir -p /tmp/doseledger_fuzz_ran",)


HEADS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 100000), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<f8', 'fortran_order': 1, 'shape': (-1,), }",
    "(" * 300 + ")" * 300,
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }",
    "{'descr': '<U2000000000', 'fortran_order': False, 'shape': (), }",
    "{'descr': '<M8[ns]', 'fortran_order': True, 'shape': (3,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1.5, None), }",
    "{'descr': '>i2', 'fortran_order': True, 'shape': (4, 4, 4), }",
    "__import__('os').system('x')",
    "{}",
    "1",
)


def _with_head(rng: random.Random, member: bytes) -> bytes:
    """An NPY with another head."""
    size = int.from_bytes(member[8:10], "little")
    if rng.random() < 0.5:
        head = bytearray(member[10 : 10 + size])
        for _ in range(rng.randint(1, 3)):
            head[rng.randrange(len(head))] = rng.randrange(256)
        return member[:10] + bytes(head) + member[10 + size :]
    text = rng.choice(HEADS).ljust(117)[:60_000] + "\n"
    return member[:8] + len(text).to_bytes(2, "little") + text.encode() + member[10 + size :]


def damage_zip(rng: random.Random, content: bytes) -> bytes:
    """A zip whose members are damaged, named twice, packed, gone, new, or go elsewhere."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    here, kind, out = rng.randrange(len(members)), rng.randrange(10), io.BytesIO()
    name, data = members[here]
    if kind == 0:
        del members[here]
    elif kind == 1:
        members.insert(rng.randrange(len(members)), (name, rng.choice(members)[1]))
    elif kind == 2:
        members[here] = (name, damage_bytes(rng, data, head=200))
    elif kind == 3:
        members[here] = (name, pickle.dumps(Payload()))
    elif kind == 4 and name.endswith(".npy"):
        members[here] = (name, _object_array())
    elif kind in (5, 6) and name.endswith(".npy"):
        members[here] = (name, _with_head(rng, data))
    elif kind == 7:
        members[here] = (
            rng.choice(("../../outside", "/tmp/outside", "", "a/b.npy", "x" * 60_000, "con.npy", "é.npy")),
            data,
        )
    elif kind == 8:
        members[here], members[0] = (name, members[0][1]), (members[0][0], data)
    else:
        members.append((rng.choice(("note.txt", "extra.npy")), bytes(3 << 20)))
    packed = rng.choice(
        (zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    )
    with zipfile.ZipFile(out, "w", packed) as archive:
        for name, data in members:
            # Named so, no warning is told of a name that is there twice.
            with archive.open(zipfile.ZipInfo(name), "w") if not name else _quietly(archive, name, packed) as stream:
                stream.write(data)
    return out.getvalue()


def _quietly(archive: zipfile.ZipFile, name: str, packed: int) -> Any:
    import warnings

    info = zipfile.ZipInfo(name)
    info.compress_type = packed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return archive.open(info, "w")


def _object_array() -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, np.array([Payload()], dtype=object), allow_pickle=True)
    return out.getvalue()


def npz_kind(make_case: Callable[..., Case], contracts: Path) -> Kind:
    """A case, a prediction with drawn doses, and a stack of images."""

    def make(folder: Path) -> None:
        case = make_case("case_0001")
        (folder / "set").mkdir(parents=True)
        case.save(folder / "set" / "case_0001.npz")
        seen = {
            "case_id": "case_0001",
            "case_sha256": "a",
            "checkpoint_sha256": "b",
            "trained_on": [],
            "selected_on": [],
        }
        predicted = {
            "dose_gy": case.dose_gy,
            "spacing_mm": np.asarray(case.grid.spacing_mm),
            "origin_mm": np.asarray(case.grid.origin_mm),
            "meta": np.asarray(json.dumps(seen)),
            "samples": np.ones((3, int(case.body.sum())), np.uint16),
            "sampled": case.body.astype(np.uint8),
            "sample_step_gy": np.asarray(0.01),
        }
        (folder / "predicted").mkdir()
        write_npz(folder / "predicted" / "case_0001.npz", predicted)  # type: ignore[arg-type]
        rng = np.random.default_rng(1)
        write_npz(
            folder / "stack.npz", {"images": rng.random((8, 6, 6)), "labels": np.arange(8) % 2, "groups": np.arange(8)}
        )

    def spoil(rng: random.Random, folder: Path) -> Spoilt:
        path = rng.choice(sorted(folder.rglob("*.npz")))
        in_bytes = rng.random() < 0.5
        words = rewrite(
            path, lambda content: damage_bytes(rng, content, head=4000) if in_bytes else damage_zip(rng, content)
        )
        readers = {
            "set": ("case", "meta", "describe", "gamma", "map", "parity"),
            "predicted": ("prediction", "samples", "seen"),
        }
        return Spoilt(words, ("case_0001", "stack.npz"), readers.get(path.parent.name, ("stack",)), in_bytes)

    def load(folder: Path, out: Path) -> Told:
        case = Case.load(folder / "set" / "case_0001.npz")
        return Told({**vars(case), "meta": case.meta})

    def predicted(folder: Path, out: Path) -> Told:
        return Told(vars(load_prediction(folder / "predicted" / "case_0001.npz")))

    def samples(folder: Path, out: Path) -> Told:
        return Told(dict(enumerate(load_samples(folder / "predicted" / "case_0001.npz"))))  # type: ignore[arg-type]

    def parity(folder: Path, out: Path) -> Any:
        found = check_data_set(folder / "set", load_contract(contracts / "case.yaml"))
        path = folder / "set" / "case_0001.npz"
        return found, [read_member(path, name) for name in array_heads(path)]

    readers: dict[str, Reader] = {
        "case": load, "prediction": predicted, "samples": samples, "parity": parity,
        "meta": lambda folder, out: read_meta(folder / "set" / "case_0001.npz"),
        "describe": lambda folder, out: describe_case(Case.load(folder / "set" / "case_0001.npz")),
        "gamma": lambda folder, out: read_dose_file(folder / "set" / "case_0001.npz"),
        "map": lambda folder, out: map_member(folder / "set" / "case_0001.npz", "masks").sum(),
        "seen": lambda folder, out: read_seen(folder / "predicted" / "case_0001.npz"),
        "stack": lambda folder, out: Told(vars(read_stack(folder / "stack.npz"))),
    }  # fmt: skip
    return Kind(make, spoil, readers)


def checkpoint_kind(write: Callable[[Path], None]) -> Kind:
    """A checkpoint as training leaves it."""

    def make(folder: Path) -> None:
        folder.mkdir(parents=True)
        write(folder / "best.ckpt")

    def spoil(rng: random.Random, folder: Path) -> Spoilt:
        def change(content: bytes) -> bytes:
            if rng.random() < 0.1:
                return pickle.dumps(Payload())
            return damage_zip(rng, content) if rng.random() < 0.4 else damage_bytes(rng, content, head=3000)

        return Spoilt(rewrite(folder / "best.ckpt", change), ("best.ckpt",), shows=True)

    def load(folder: Path, out: Path) -> Told:
        found = load_checkpoint(folder / "best.ckpt")
        weights = {name: tensor.numpy() for name, tensor in found.weights.items()}
        return Told(
            {**weights, "rest": repr({name: value for name, value in vars(found).items() if name != "weights"})}
        )

    readers: dict[str, Reader] = {
        "load": load,
        "seen": lambda folder, out: Told({"seen": seen_of_checkpoint(folder / "best.ckpt", "")}),
        "model": lambda folder, out: model_of(folder / "best.ckpt"),
    }
    return Kind(make, spoil, readers)


def bundle_kind(order: Callable[..., Order]) -> Kind:
    """A bundle in two parts with its index, and the folder that it unpacks to."""

    def make(folder: Path) -> None:
        pack(folder / "toy.tar", order(part_bytes=600_000), None, silent)
        rehydrate(folder / "toy.tar", folder / "unpacked", "", silent)

    def spoil(rng: random.Random, folder: Path) -> Spoilt:
        named, kind = ("toy", "manifest", "SHA256SUMS", "unpacked"), rng.randrange(10)
        if kind < 4:
            part = rng.choice(sorted(folder.glob("toy.tar.0*")))
            change = damage_bytes if kind < 2 else _damage_head
            return Spoilt(rewrite(part, lambda content: change(rng, content)), named, ("verify", "rehydrate"), True)
        if kind < 7:
            (index,) = folder.glob("*.json")
            return Spoilt(rewrite(index, lambda content: damage_json(rng, content)), named, ("verify", "rehydrate"))
        path = rng.choice(sorted(path for path in (folder / "unpacked").rglob("*") if path.is_file()))
        words = rewrite(
            path, lambda content: damage_json(rng, content) if path.suffix == ".json" else damage_bytes(rng, content)
        )
        return Spoilt(words, named, ("folder",), True)

    def verify(folder: Path, out: Path) -> Told:
        check = verify_bundle(folder / "toy.tar", "", silent)
        return Told({path.name: sha256_of_file(path) for path in folder.glob("toy*")}, said=bool(check.findings))

    def unpack(folder: Path, out: Path) -> Told:
        rehydrate(folder / "toy.tar", out / "again", "", silent)
        files = (path for path in (out / "again").rglob("*") if path.is_file())
        return Told({path.relative_to(out).as_posix(): sha256_of_file(path) for path in files})

    def unpacked(folder: Path, out: Path) -> Told:
        check = verify_bundle(folder / "unpacked", "", silent)
        changed = {path.name: sha256_of_file(path) for path in (folder / "unpacked").rglob("*") if path.is_file()}
        return Told(changed, said=bool(check.findings))

    return Kind(make, spoil, {"verify": verify, "rehydrate": unpack, "folder": unpacked})


def _damage_head(rng: random.Random, content: bytes) -> bytes:
    """A tar one of whose heads says something else, and whose sum of that head is right again."""
    blocks = [at for at in range(0, len(content) - 512, 512) if content[at + 257 : at + 262] == b"ustar"]
    if not blocks:
        return damage_bytes(rng, content)
    at = rng.choice(blocks)
    head = bytearray(content[at : at + 512])
    field, size, values = rng.choice((
        (0, 100, (b"../../outside", b"/tmp/outside", b"a\x00b", b"x" * 100, b"\xff\xfe", b"data/../../x")),
        (124, 12, (b"77777777777\x00", b"-0000000001\x00", b"\x80" + b"\xff" * 11, b"abc", b"00000000000\x00")),
        (156, 1, (b"1", b"2", b"3", b"5", b"g", b"x", b"L", b"S", b"\xff")),
        (157, 100, (b"/etc/passwd", b"../../x")),
    ))  # fmt: skip
    head[field : field + size] = rng.choice(values).ljust(size, b"\x00")[:size]
    head[148:156] = b" " * 8
    head[148:156] = f"{sum(head):06o}\0 ".encode()
    return content[:at] + bytes(head) + content[at + 512 :]

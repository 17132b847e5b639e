"""Bundles: packed, split, verified without unpacking, rehydrated elsewhere; every damage named."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from doseledger.core.errors import BadInput, GateFailed, NotReady
from doseledger.core.files import sha256_of_file
from doseledger.ledger.bundle.pack import index_path, pack
from doseledger.ledger.bundle.record import Order
from doseledger.ledger.bundle.rehydrate import rehydrate
from doseledger.ledger.bundle.sources import Wanted, pair_files
from doseledger.ledger.bundle.verify import verify_bundle
from doseledger.parity.check import check_data_set
from doseledger.parity.contract import load_contract

MakeOrder = Callable[..., Order]
OWN = ["README.md", "manifest.md", "manifest.json", "files.csv", "SHA256SUMS", "contract.yaml"]


def silent(line: str) -> None:
    """Tell nobody."""


@pytest.fixture
def packed(order: MakeOrder, tmp_path: Path) -> Path:
    """A bundle in several parts of 200 kB."""
    out = tmp_path / "out" / "toy.tar"
    pack(out, order(part_bytes=200_000, scenario="S-7"), None, silent)
    return out


def parts_of(archive: Path) -> list[Path]:
    return sorted(archive.parent.glob(f"{archive.name}.[0-9][0-9][0-9]"))


def findings(bundle: Path) -> list[str]:
    return verify_bundle(bundle, "", silent).findings


def test_parts_joined_are_a_plain_tar_and_unpack_without_us(packed: Path, tmp_path: Path) -> None:
    parts = parts_of(packed)
    assert len(parts) > 3
    assert {part.stat().st_size for part in parts[:-1]} == {200_000}
    joined = tmp_path / "joined.tar"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    (tmp_path / "by_hand").mkdir()
    subprocess.run(["tar", "-x", "-f", joined, "-C", tmp_path / "by_hand"], check=True)
    done = subprocess.run(
        ["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "by_hand", check=False, capture_output=True
    )
    assert done.returncode == 0, done.stdout
    with tarfile.open(joined) as archive:
        members = archive.getmembers()
    assert [member.name for member in members[:6]] == OWN
    assert {(member.mtime, member.uid, member.uname, member.mode) for member in members} == {(0, 0, "", 0o644)}


def test_equal_content_gives_equal_bytes_in_any_part_size(order: MakeOrder, packed: Path, tmp_path: Path) -> None:
    pack(tmp_path / "again" / "toy.tar", order(scenario="S-7"), None, silent)
    joined = b"".join(part.read_bytes() for part in parts_of(packed))
    assert (tmp_path / "again" / "toy.tar").read_bytes() == joined


def test_a_bundle_says_all_that_is_in_it(packed: Path, project: Path, tmp_path: Path) -> None:
    rehydrate(packed, tmp_path / "back", "", silent)
    manifest = json.loads((tmp_path / "back" / "manifest.json").read_text())
    assert (manifest["name"], manifest["scenario"], manifest["contract"]["name"]) == ("toy", "S-7", "case")
    entry = next(item for item in manifest["files"] if item["path"].endswith("case_0002.npz"))
    source = project / "data/cases/toy/case_0002.npz"
    assert (entry["sha256"], entry["size"], entry["contract"]) == (
        sha256_of_file(source),
        source.stat().st_size,
        "kept",
    )
    assert entry["arrays"]["dose_gy"] == {"dtype": "float32", "shape": [24, 40, 48]}
    with (tmp_path / "back" / "files.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    dose = next(row for row in rows if row["path"].endswith("case_0002.npz") and row["array"] == "dose_gy")
    assert (dose["dtype"], dose["shape"], dose["contract"]) == ("float32", "24x40x48", "kept")
    assert {row["path"] for row in rows} == {item["path"] for item in manifest["files"]}
    readme = (tmp_path / "back" / "README.md").read_text()
    for wanted in ("Scenario `S-7`", "| `dose_gy` | no | float32 | z, y, x | 0 … 250 |", "sha256sum --check", "numpy "):
        assert wanted in readme


def test_a_rehydrated_bundle_is_laid_out_as_the_project_and_equal_to_it(
    packed: Path, project: Path, tmp_path: Path
) -> None:
    rehydrate(packed, tmp_path / "elsewhere" / "back", "", silent)
    for path in (project / "data/cases/toy/case_0001.npz", project / "models/toy/checkpoints/best.ckpt"):
        copy = tmp_path / "elsewhere" / "back" / path.relative_to(project)
        assert sha256_of_file(copy) == sha256_of_file(path)
    assert findings(tmp_path / "elsewhere" / "back") == []


@pytest.mark.parametrize("set_name", ["ptychography", "image_stamps"])
def test_sets_that_have_nothing_to_do_with_dose_go_the_same_road(
    set_name: str, make_ptychography: Callable[..., Path], make_stamps: Callable[..., Path], order: MakeOrder,
    contracts: Path, tmp_path: Path,
) -> None:  # fmt: skip
    folder = make_ptychography() if set_name == "ptychography" else make_stamps()
    contract = contracts / f"{set_name}.yaml"
    pack(tmp_path / "set.tar", order(Wanted(data=(folder,)), contract=contract), None, silent)
    rehydrate(tmp_path / "set.tar", tmp_path / "back", "", silent)
    again = check_data_set(tmp_path / "back" / "data" / folder.name, load_contract(contract))
    assert again.lines == []
    assert {name: sha256_of_file(folder / name) for name in again.files} == {
        name: sha256_of_file(tmp_path / "back" / "data" / folder.name / name) for name in again.files
    }


def test_opaque_files_come_with_parameters_and_stage_and_are_never_opened(
    order: MakeOrder, project: Path, tmp_path: Path
) -> None:
    files = pair_files([project / "weights.dill"], [project / "weights.json"], ["train@toy"])
    wanted = Wanted(files=files, evidence=(project / "pytest.log",))
    pack(tmp_path / "toy.tar", order(wanted), None, silent)
    rehydrate(tmp_path / "toy.tar", tmp_path / "back", "", silent)
    manifest = json.loads((tmp_path / "back" / "manifest.json").read_text())
    opaque = next(item for item in manifest["files"] if item["path"] == "files/weights.dill")
    assert (opaque["stage"], opaque["parameters"], "arrays" in opaque) == ("train@toy", {"layers": 4}, False)
    assert manifest["evidence"] == [{"path": "evidence/pytest.log", "line": "41 passed, 1 skipped", "failed": 0}]
    assert "41 passed, 1 skipped" in (tmp_path / "back" / "README.md").read_text()


def test_the_audit_logs_head_stands_in_manifest_and_index(order: MakeOrder, tmp_path: Path) -> None:
    from doseledger.ledger.audit.anchors import file_anchors

    head = {"length": 12, "sha256": "a" * 64, "log_id": "b" * 64}
    pack(tmp_path / "toy.tar", order(audit=head), None, silent)
    rehydrate(tmp_path / "toy.tar", tmp_path / "back", "", silent)
    for holder in (
        index_path(tmp_path / "toy.tar"),
        tmp_path / "back" / "manifest.json",
        tmp_path / "back" / "README.md",
    ):
        anchor = file_anchors(holder)[0]
        assert (anchor.head.length, anchor.head.sha256, anchor.log_id) == (12, "a" * 64, "b" * 64)


def test_every_changed_byte_is_noticed_and_its_file_named(packed: Path) -> None:
    assert findings(packed) == []
    parts = parts_of(packed)
    total = sum(part.stat().st_size for part in parts)
    for at in (*range(0, total, total // 40), total - 1):
        part = parts[at // 200_000]
        original = part.read_bytes()
        changed = bytearray(original)
        changed[at % 200_000] ^= 0x10
        part.write_bytes(changed)
        found = findings(packed)
        assert any(f"{part.name}" in line and "are not what was packed" in line for line in found), (at, found)
        part.write_bytes(original)
    assert findings(packed) == []


def test_a_changed_byte_inside_a_file_names_that_file(packed: Path) -> None:
    joined = b"".join(part.read_bytes() for part in parts_of(packed))
    at = joined.index(bytes(range(256)) * 2) + 5000
    part = parts_of(packed)[at // 200_000]
    content = bytearray(part.read_bytes())
    content[at % 200_000] ^= 1
    part.write_bytes(content)
    found = findings(packed)
    assert "models/toy/checkpoints/best.ckpt: changed" in found
    # Blocks of 4 MiB are larger than this whole bundle; the members' own digests say which file it is.
    assert sum(line.endswith(": changed") for line in found) == 1


def test_missing_added_short_and_long_parts_are_named(packed: Path) -> None:
    parts = parts_of(packed)
    second = parts[1].read_bytes()
    parts[1].unlink()
    assert findings(packed) == [f"{parts[1].name}: this part is missing; ask the sender for it"]
    parts[1].write_bytes(second[:-100])
    assert f"{parts[1].name}: 100 bytes short (199900, wanted 200000); copy it again" in findings(packed)
    parts[1].write_bytes(second + b"x")
    assert f"{parts[1].name}: 1 bytes too long (200001, wanted 200000); copy it again" in findings(packed)
    parts[1].write_bytes(second)
    stranger = packed.with_name(f"{packed.name}.099")
    stranger.write_bytes(b"")
    assert findings(packed) == ["toy.tar.099: no part of this bundle; take it away"]


def test_an_added_and_a_missing_member_are_named_though_the_index_was_made_to_fit(packed: Path, tmp_path: Path) -> None:
    joined = tmp_path / "forged.tar"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts_of(packed)))
    again = tmp_path / "again.tar"
    with tarfile.open(joined) as old, tarfile.open(again, "w") as new:
        for member in old.getmembers():
            if member.name != "report/report.html" and not member.name.endswith("report.html"):
                new.addfile(member, old.extractfile(member))
        (tmp_path / "extra.txt").write_text("x")
        new.add(tmp_path / "extra.txt", "extra.txt")
    forge_index(packed, again)
    found = findings(again)
    assert found == ["report.html: missing", "extra.txt: added, the bundle was packed without it"]


def forge_index(packed: Path, archive: Path) -> None:
    """Give an archive an index that fits its bytes, with the digest of SHA256SUMS of the real one."""
    import hashlib

    content = archive.read_bytes()
    index = json.loads(index_path(packed).read_text())
    step = index["block_bytes"]
    index |= {
        "bundle": archive.name,
        "size": len(content),
        "parts": [{"name": archive.name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}],
        "blocks": [hashlib.sha256(content[at : at + step]).hexdigest() for at in range(0, len(content), step)],
    }
    index_path(archive).write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("../outside.txt", {}, "'../outside.txt' reaches out of its folder"),
        ("/tmp/outside.txt", {}, "is an absolute path"),
        ("a\\..\\b", {}, "holds a character"),
        ("C:evil", {}, "is an absolute path"),
        ("dir/CON.txt", {}, "Windows does not take"),
        ("readme.MD", {}, "are one file where case does not count"),
        ("README.md/x", {}, "'README.md' is a file, but 'README.md/x' needs a folder"),
        ("link", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "'link' is a link"),
        ("hard", {"type": tarfile.LNKTYPE, "linkname": "README.md"}, "'hard' is a link"),
        ("pipe", {"type": tarfile.FIFOTYPE}, "'pipe' is no plain file"),
    ],
)
def test_a_hostile_member_is_refused_and_nothing_is_written(
    name: str, change: dict[str, Any], message: str, packed: Path, tmp_path: Path
) -> None:
    hostile = tmp_path / "hostile.tar"
    hostile.write_bytes(b"".join(part.read_bytes() for part in parts_of(packed)))
    head = tarfile.TarInfo(name)
    for key, value in change.items():
        setattr(head, key, value)
    with tarfile.open(hostile, "a") as archive:
        archive.addfile(head)
    forge_index(packed, hostile)
    with pytest.raises(GateFailed) as caught:
        rehydrate(hostile, tmp_path / "back", "", silent)
    assert message in str(caught.value)
    assert not (tmp_path / "back").exists()
    assert not (tmp_path / "outside.txt").exists()


def test_the_index_digest_from_the_sender_catches_a_forged_pair(packed: Path) -> None:
    digest = sha256_of_file(index_path(packed))
    assert verify_bundle(packed, digest, silent).findings == []
    index = json.loads(index_path(packed).read_text())
    index_path(packed).write_text(json.dumps(index | {"scenario": "S-8"}))
    found = verify_bundle(packed, digest, silent).findings
    assert found == ["toy.tar.index.json: not the index whose digest was given; ask the sender for it"]


def test_an_archive_without_its_index_is_not_vouched_for(packed: Path) -> None:
    index_path(packed).unlink()
    with pytest.raises(BadInput, match=r"no toy\.tar\.index\.json beside it, so nothing says what it should be"):
        verify_bundle(packed, "", silent)


def test_any_file_of_a_bundle_names_it(packed: Path) -> None:
    for name in (packed, parts_of(packed)[2], index_path(packed)):
        assert verify_bundle(name, "", silent).findings == []


def test_an_unpacked_bundle_is_verified_too(packed: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"
    rehydrate(packed, back, "", silent)
    (back / "report.html").write_text("<p>MAE 0.2 Gy</p>")
    (back / "files.csv").unlink()
    (back / "notes.txt").write_text("x")
    (back / "link").symlink_to("/etc")
    assert findings(back) == [
        "link: a symbolic link, a bundle holds none",
        "files.csv: missing",
        "notes.txt: added, the bundle was packed without it",
        "report.html: changed",
    ]


def test_rehydrating_never_overwrites_and_leaves_nothing_when_it_fails(packed: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"
    back.mkdir()
    with pytest.raises(BadInput, match="is there already, and nothing is ever overwritten"):
        rehydrate(packed, back, "", silent)
    content = bytearray(parts_of(packed)[0].read_bytes())
    content[-1] ^= 1
    parts_of(packed)[0].write_bytes(content)
    with pytest.raises(GateFailed, match="not what was packed"):
        rehydrate(packed, tmp_path / "other", "", silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "out", "project"]


KILLED = """
import os, signal, sys
from pathlib import Path
from doseledger.ledger.bundle import rehydrate as module
real, count = module._unpack, []
def slow(*arguments):
    count.append(1)
    if len(count) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*arguments)
module._unpack = slow
module.rehydrate(Path(sys.argv[1]), Path(sys.argv[2]), "", print)
"""


def test_a_killed_rehydration_leaves_no_half_folder_and_the_next_clears_up(packed: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, packed, tmp_path / "back"], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "back").exists()
    assert len(list(tmp_path.glob(".back.*.part"))) == 1
    rehydrate(packed, tmp_path / "back", "", silent)
    assert list(tmp_path.glob(".back.*.part")) == []
    assert findings(tmp_path / "back") == []


def test_names_and_process_numbers_that_come_again_are_no_trouble(order: MakeOrder, tmp_path: Path) -> None:
    # In a container a killed process and the next often have one number.
    left = tmp_path / f".a[1].tar.{os.getpid()}.part"
    left.mkdir()
    (left / "a[1].tar").write_text("half")
    pack(tmp_path / "a[1].tar", order(part_bytes=500_000), None, silent)
    assert not left.exists()
    assert findings(tmp_path / "a[1].tar") == []
    with pytest.raises(BadInput, match="is there already"):
        pack(tmp_path / "a[1].tar", order(), None, silent)


def test_another_process_at_work_is_left_alone(order: MakeOrder, tmp_path: Path) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        other = tmp_path / f".toy.tar.{sleeper.pid}.part"
        other.mkdir()
        pack(tmp_path / "toy.tar", order(), None, silent)
        assert other.is_dir()
    finally:
        os.kill(sleeper.pid, signal.SIGTERM)
        sleeper.wait()


def test_a_killed_pack_leaves_no_bundle_and_the_next_clears_up(order: MakeOrder, project: Path, tmp_path: Path) -> None:
    script = KILLED_PACK.format(part_bytes=200_000)
    arguments = [project, order().contract, order().templates, tmp_path / "toy.tar"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert parts_of(tmp_path / "toy.tar") == []
    assert len(list(tmp_path.glob(".toy.tar.*.part"))) == 1
    pack(tmp_path / "toy.tar", order(), None, silent)
    assert list(tmp_path.glob(".toy.tar.*.part")) == []


KILLED_PACK = """
import os, signal, sys
from pathlib import Path
from doseledger.ledger.bundle import parts, pack as bundle
from doseledger.ledger.bundle.record import Order
from doseledger.ledger.bundle.sources import Wanted
root, contract, templates, out = map(Path, sys.argv[1:])
real = parts.PartWriter.write
def write(self, data):
    if len(self.parts) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, data)
parts.PartWriter.write = write
wanted = Wanted(data=(root / "data/cases/toy",))
bundle.pack(out, Order(wanted, root, contract, templates, part_bytes={part_bytes}), None, print)
"""


def test_a_disk_without_room_is_told_before_anything_is_written(
    packed: Path, order: MakeOrder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr("doseledger.ledger.bundle.parts.shutil.disk_usage", lambda folder: Usage)
    with pytest.raises(NotReady, match=r"\d+ MB are needed and 0 MB free"):
        rehydrate(packed, tmp_path / "back", "", silent)
    with pytest.raises(NotReady, match="MB are needed and 0 MB free; make room"):
        pack(tmp_path / "more" / "toy.tar", order(), None, silent)
    assert not (tmp_path / "more").exists()


def test_room_is_wanted_for_all_files_of_a_bundle_together(
    order: MakeOrder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted: list[int] = []
    monkeypatch.setattr("doseledger.ledger.bundle.pack.require_space", lambda folder, n_bytes: wanted.append(n_bytes))
    out = tmp_path / "room" / "toy.tar"
    pack(out, order(), None, silent)
    with tarfile.open(out) as archive:
        sizes = [member.size for member in archive.getmembers() if member.name not in OWN]
    assert len(sizes) > 1
    assert wanted == [sum(sizes)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": [{"name": "../toy.tar", "size": 1, "sha256": "0" * 64}]}, r"parts\.0\.name: "),
        ({"parts": [{"name": "other.tar", "size": 1, "sha256": "0" * 64}]}, "names parts of another archive"),
        ({"parts": []}, "parts: "),
        ({"blocks": ["xyz"]}, r"blocks\.0: "),
        ({"block_bytes": (1 << 28) + 1}, "block_bytes: .* less than or equal to 268435456"),
        ({"block_bytes": 0}, "block_bytes: .* greater than or equal to 1"),
        ({"blocks": []}, "its parts and blocks do not add up to"),
        ({"size": -1}, "size: "),
        ({"format": 2}, "format 2, this version reads 1; update doseledger"),
        ({"more": 1}, "more: "),
    ],
)
def test_an_index_that_makes_no_sense_is_refused_by_its_key(change: dict[str, Any], message: str, packed: Path) -> None:
    index_path(packed).write_text(json.dumps(json.loads(index_path(packed).read_text()) | change))
    with pytest.raises(BadInput, match=message):
        verify_bundle(packed, "", silent)


def test_a_manifest_forged_with_all_its_sums_can_not_reach_out_of_the_folder(packed: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"
    rehydrate(packed, back, "", silent)
    manifest = json.loads((back / "manifest.json").read_text())
    manifest["files"][0]["path"] = "../../../etc/passwd"
    (back / "manifest.json").write_text(json.dumps(manifest))
    sums = (back / "SHA256SUMS").read_text().splitlines()
    kept = [line for line in sums if not line.endswith("  manifest.json")]
    (back / "SHA256SUMS").write_text(
        "\n".join([*kept, f"{sha256_of_file(back / 'manifest.json')}  manifest.json"]) + "\n"
    )
    assert findings(back) == ["../../../etc/passwd: in manifest.json and not in SHA256SUMS"]
    manifest["files"] = [{"path": "x"}]
    (back / "manifest.json").write_text(json.dumps(manifest))
    (back / "SHA256SUMS").write_text(
        "\n".join([*kept, f"{sha256_of_file(back / 'manifest.json')}  manifest.json"]) + "\n"
    )
    with pytest.raises(BadInput, match=r"manifest\.json: files\.0\.role: the key is missing"):
        findings(back)

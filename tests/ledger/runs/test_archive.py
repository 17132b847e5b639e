"""An archived run stands alone: every byte is listed, and a change to any is named."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import read_json, sha256_of_file
from doseledger.ledger.runs.archive import archive_run, example_cases
from doseledger.ledger.runs.check import check_run
from doseledger.ledger.runs.files import files_of_archive

WHEN = datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC)


def archived(project, target: Path) -> Path:
    files = project.files
    return archive_run(files, check_run(files), target, when=WHEN, examples=example_cases(files, 2))


def test_an_archive_holds_the_contract_and_lists_every_byte(project, tmp_path: Path) -> None:
    folder = archived(project, tmp_path / "archive")
    assert folder.name == "run_20260301_123005"
    manifest = read_json(folder / "manifest.json")
    listed = {item["path"]: item for item in manifest["files"]}
    assert set(listed) == {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    } - {"manifest.json"}  # fmt: skip
    for name in ("metrics_summary.json", "report.html", "report.pdf", "config_resolved.yaml", "examples/training.png"):
        assert listed[name]["sha256"] == sha256_of_file(folder / name)
        assert listed[name]["size"] == (folder / name).stat().st_size
    assert sum(name.startswith("examples/case_") for name in listed) == 2
    assert manifest["check"]["ok"] is True
    assert manifest["settings"]["lr"] == 0.002
    assert manifest["dirty"] is False
    assert manifest["commit"] == project.git("rev-parse", "HEAD")


def test_an_archived_run_passes_the_checklist_elsewhere(project, tmp_path: Path) -> None:
    folder = archived(project, tmp_path / "archive")
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    recompute = project.recompute(1)
    files = files_of_archive(moved)
    assert files.predictions is not None
    shutil.rmtree(recompute.predictions)
    verdict = check_run(files, recompute=type(recompute)(recompute.cases, files.predictions, recompute.yardsticks, 1))
    assert verdict.errors == ()
    assert verdict.details["checks"][-1]["check"] == "manifest"


def test_an_archived_run_is_never_overwritten(project, tmp_path: Path) -> None:
    archived(project, tmp_path)
    with pytest.raises(BadInput, match="is there already, and an archived run is never overwritten"):
        archived(project, tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("report.pdf", "report.pdf: found SHA256"),
        ("examples/training.png", "examples/training.png: found SHA256"),
    ],
)
def test_a_changed_byte_in_an_archive_is_named(project, tmp_path: Path, name: str, message: str) -> None:
    folder = archived(project, tmp_path)
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(bytes(content))
    assert [f.message for f in check_run(files_of_archive(folder)).errors if message in f.message]


def test_a_file_more_or_less_in_an_archive_is_named(project, tmp_path: Path) -> None:
    folder = archived(project, tmp_path)
    (folder / "notes.txt").write_text("mine")
    (folder / "README.md").unlink()
    found = "\n".join(f.message for f in check_run(files_of_archive(folder)).errors)
    assert "README.md: found no such file" in found
    assert "notes.txt: found a file that the manifest does not list" in found


def test_an_incomplete_run_is_not_archived_and_leaves_nothing_behind(project, tmp_path: Path) -> None:
    examples = example_cases(project.files, 1)
    project.files.pdf.unlink()
    files = project.files
    with pytest.raises(NotReady, match=r"is not complete: no report\.pdf"):
        archive_run(files, check_run(files), tmp_path / "archive", when=WHEN, examples=examples)
    assert not (tmp_path / "archive").exists()


def test_a_run_that_fails_its_checklist_says_so_in_its_archive(project, tmp_path: Path) -> None:
    record = read_json(project.files.run / "run.json")
    record["provenance"]["git"] |= {"dirty": True, "dirty_paths": ["code.py"], "note": "1 tracked file differs"}
    project.edit_json(project.files.run / "run.json", **record)
    folder = archived(project, tmp_path)
    manifest = read_json(folder / "manifest.json")
    assert manifest["dirty"] is True
    assert any("DIRTY TREE" in message for message in manifest["check"]["errors"])
    assert "**DIRTY TREE**" in (folder / "README.md").read_text()


def test_a_folder_without_a_manifest_is_no_archived_run(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"no manifest\.json, so this is no archived run"):
        files_of_archive(tmp_path)

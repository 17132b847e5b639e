"""The commands as a sender and a receiver type them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from doseledger.cli.app import app
from doseledger.core.errors import BadInput, GateFailed

EXECUTABLE = Path(sys.executable).with_name("doseledger")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(item) for item in arguments], prog_name="doseledger")


@pytest.fixture(autouse=True)
def in_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(project)


def pack(contracts: Path, templates: Path, *more: object) -> Result:
    return call(
        "bundle", "pack", "../toy.tar", "--data", "data/cases/toy", "--contract", contracts / "case.yaml", "--run",
        "models/toy", "--report", "report.html", "--templates", templates, "--json", *more,
    )  # fmt: skip


def test_from_pack_to_rehydrated_bundle(contracts: Path, templates: Path, project: Path) -> None:
    more = ("--file", "weights.dill", "--params", "weights.json", "--stage", "train@toy", "--evidence", "pytest.log")
    packed = pack(contracts, templates, *more, "--part-size-mb", "1", "--scenario", "S-7")
    assert packed.exit_code == 0, packed.output
    index = json.loads(packed.stdout)
    assert [part["name"] for part in index["parts"]][:2] == ["toy.tar.001", "toy.tar.002"]
    checked = call("bundle", "verify", "../toy.tar", "--sha256", index["index_sha256"], "--json")
    assert json.loads(checked.stdout)["ok"] is True
    done = call("bundle", "rehydrate", "../toy.tar", "../back", "--sha256", index["index_sha256"])
    assert done.exit_code == 0, done.output
    assert "each as it was packed" in done.stdout
    assert (project.parent / "back" / "files" / "weights.dill").read_bytes() == (project / "weights.dill").read_bytes()
    again = call("parity", "data/cases/toy", "../back/data/cases/toy", "--contract", contracts / "case.yaml", "--out",
                 "../parity", "--templates", templates, "--gate")  # fmt: skip
    assert again.exit_code == 0, again.output
    log = (project / ".doseledger" / "audit.jsonl").read_text()
    assert index["index_sha256"] in log


def test_the_audit_logs_head_at_packing_is_in_the_bundle(contracts: Path, templates: Path, project: Path) -> None:
    index = json.loads(pack(contracts, templates).stdout)
    assert index["audit"]["length"] >= 1
    anchored = call("audit", "verify", "../toy.tar.index.json")
    assert anchored.exit_code == 0, anchored.output


def test_a_changed_byte_is_one_message_and_exit_1(contracts: Path, templates: Path, project: Path) -> None:
    pack(contracts, templates)
    archive = project.parent / "toy.tar"
    content = bytearray(archive.read_bytes())
    content[content.index(b"MAE 1.2 Gy") + 4] ^= 1
    archive.write_bytes(content)
    done = subprocess.run([EXECUTABLE, "bundle", "verify", archive], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "error: toy.tar: not what was packed, 2 finding(s):" in done.stderr
    assert "  - report.html: changed" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_contract_can_be_checked_without_packing(
    contracts: Path, rewrite: Callable[..., None], project: Path
) -> None:
    assert call("bundle", "check", "data/cases/toy", "--contract", contracts / "case.yaml").exit_code == 0
    rewrite(project / "data/cases/toy/case_0001.npz", n_fractions=np.int32(0))
    failed = call("bundle", "check", "data/cases/toy", "--contract", contracts / "case.yaml", "--json")
    assert isinstance(failed.exception, GateFailed)
    assert json.loads(failed.stdout)["findings"] == [
        "case_0001.npz: n_fractions: the least value is 0, wanted at least 1"
    ]


def test_the_parity_gate_fails_beyond_limits_and_still_writes_the_page(
    contracts: Path, templates: Path, rewrite: Callable[..., None], project: Path
) -> None:
    import shutil

    shutil.copytree(project / "data/cases/toy", project / "other")
    with np.load(project / "other/case_0002.npz") as npz:
        dose = npz["dose_gy"]
    rewrite(project / "other/case_0002.npz", dose_gy=dose + np.float32(2.0))
    arguments = (
        "parity",
        "data/cases/toy",
        "other",
        "--contract",
        contracts / "case.yaml",
        "--out",
        "out",
        "--templates",
    )
    failed = call(*arguments, templates, "--gate", "--findings", "findings.json")
    assert isinstance(failed.exception, GateFailed)
    assert "case_0002.npz: dose_gy: rms_difference <= 0.5 is not kept, found 2" in str(failed.exception)
    assert "NOT ALIKE" in (project / "out" / "parity.md").read_text()
    assert json.loads((project / "findings.json").read_text())["ok"] is False
    looked = call(*arguments, templates, "--limit", "1", "--json")
    assert json.loads(looked.stdout)["n_compared"] == 1
    refused = call(*arguments, templates, "--limit", "1", "--gate")
    assert isinstance(refused.exception, BadInput)
    ungated = call(*arguments, templates, "--findings", "findings.json")
    assert "--findings holds the gate's verdict: give --gate as well" in str(ungated.exception)


def test_verify_outside_a_project_says_so() -> None:
    done = call("verify", ".")
    assert isinstance(done.exception, BadInput)
    assert "no DVC project" in str(done.exception)

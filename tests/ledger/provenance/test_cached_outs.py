from __future__ import annotations

import subprocess
from pathlib import Path

from doseledger.core.files import write_text
from doseledger.ledger.provenance.stamp import cached_outs

PIPELINE = """stages:
  z:
    cmd: "true"
    outs: [data/z, {data/kept: {cache: false}}]
    plots: [plots/a.csv]
  a:
    cmd: "true"
    wdir: inner
    outs: [b, "c/${item}"]
    metrics: [m.json]
"""


def test_patterns_of_what_dvc_keeps_are_sorted_and_lie_where_the_stage_runs(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    write_text(tmp_path / "dvc.yaml", PIPELINE)
    write_text(tmp_path / "raw/x.zip.dvc", "outs:\n- path: x.zip\n")
    found = cached_outs(tmp_path)
    wanted = ["data/z", "inner/b", "inner/c/*", "inner/m.json", "plots/a.csv", "raw/x.zip"]
    assert found == sorted(f":(glob){name}{end}" for name in wanted for end in ("", "/**"))

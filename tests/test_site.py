"""The documentation builds as a site without a warning and asks the network for nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def site(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(out / "trees"), "-b", "html"]
    done = subprocess.run(
        [*build, "docs", str(out / "html")], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out / "html"


def test_every_page_hangs_below_the_first_and_loads_nothing_from_elsewhere(site: Path, repository: Path) -> None:
    written = [path.relative_to(repository / "docs") for path in (repository / "docs").glob("*/*.md")]
    first = (site / "README.html").read_text()
    for page in written:
        assert f'href="{page.with_suffix(".html")}"' in first
        text = (site / page.with_suffix(".html")).read_text()
        loaded = re.findall(r'<(?:script|img)[^>]*src="(https?:[^"]+)', text)
        loaded += re.findall(r'<link rel="stylesheet"[^>]*href="(https?:[^"]+)', text)
        assert loaded == [], page


def test_commands_settings_tables_limits_and_the_public_names_come_from_the_code(site: Path) -> None:
    commands = (site / "generated/commands.html").read_text()
    assert 'id="doseledger-train"' in commands
    assert 'id="doseledger-registry-promote"' in commands
    settings = (site / "generated/settings.html").read_text()
    assert "splits.group_column" in settings
    assert 'id="dose-mednext"' in settings
    assert 'id="a-model-of-kind-dose"' in settings
    # What keys mean: from comments of params.yaml and from docstrings of blocks.
    assert "a failed case that the gate shall let pass" in settings
    assert "a weight of 0 switches a term off" in settings
    assert "who won OpenKBP with such a cascade" in settings
    checks = (site / "generated/checks.html").read_text()
    assert 'id="sdf-sign"' in checks
    assert "an SDF with its sign turned round" in checks
    refused = (site / "generated/refusals.html").read_text()
    assert "an array of objects is refused before its pickle is read" in refused
    assert "Regular expression that a whole path below the folder matches" in settings
    tables = (site / "generated/tables.html").read_text()
    assert "gamma_points_verified" in tables
    assert "margin is the room left" in tables
    limits = (site / "generated/limits.html").read_text()
    assert "no organ or pelvic target leaves the skin" in limits
    assert "four eyes" in limits
    behaviour = (site / "generated/behaviour.html").read_text()
    assert "an roi without contours is not there" in behaviour
    api = (site / "generated/api.html").read_text()
    assert "gamma_map" in api
    assert "Raises" in api

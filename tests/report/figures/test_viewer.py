"""The page's viewer: what it is given, and what a browser makes of it."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.comparisons import compared

from doseledger.core.case import Case
from doseledger.core.files import write_text
from doseledger.report.figures.viewer import Viewer, make_viewer
from doseledger.report.figures.views import Comparison, isocentre_index
from doseledger.report.page import render_page

MakeCase = Callable[..., Case]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# What a person would do: choose a plane, an overlay and a slice, and point at the top left corner of the picture.
WALK = """
window.addEventListener("load", () => {
  const box = document.querySelector(".viewer");
  const read = () => box.querySelector(".readout").textContent;
  const set = (name, value) => {
    const control = box.querySelector("[name=" + name + "]");
    control.value = value;
    control.dispatchEvent(new Event("input"));
  };
  const canvas = box.querySelector("canvas");
  const pixels = () => Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data);
  const sum = () => pixels().reduce((a, b) => a + b, 0);
  const said = { ready: box.dataset.ready, first: read() };
  set("overlay", "none");
  said.plain = sum();
  set("overlay", "plan");
  said.plan = sum();
  set("plane", "coronal");
  set("slice", "11");
  said.coronal = read();
  said.letters = ["left", "right", "top", "bottom"].map((side) => box.querySelector("." + side).textContent).join("");
  const edge = canvas.getBoundingClientRect();
  canvas.dispatchEvent(new MouseEvent("mousemove", { clientX: edge.left + 2, clientY: edge.top + 2 }));
  said.corner = read();
  said.size = [canvas.width, canvas.height, edge.width / edge.height];
  canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: 1, cancelable: true }));
  said.scrolled = read();
  document.body.dataset.said = JSON.stringify(said);
});
"""


@pytest.fixture
def comparison(make_case: MakeCase) -> Comparison:
    case = make_case()
    assert case.dose_gy is not None
    predicted = (case.dose_gy * np.linspace(0.9, 1.1, case.grid.shape_zyx[2])).astype(np.float32)
    return compared(case, predicted)


@pytest.fixture
def view(comparison: Comparison) -> Viewer:
    return make_viewer(comparison)


def volume_of(uri: str, settings: dict[str, Any]) -> np.ndarray:
    """The slices of a sheet as a volume (z, y, x, colour), or (z, y, x) of a grey one."""
    from matplotlib.image import imread

    sheet = imread(io.BytesIO(base64.b64decode(uri.partition(",")[2])), format="png")
    n, height, width = settings["shape"]
    tiles = [divmod(index, settings["columns"]) for index in range(n)]
    return np.stack(
        [sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] for row, column in tiles]
    )


def test_the_sheets_hold_every_dose_to_half_a_step(comparison: Comparison, view: Viewer) -> None:
    volume = volume_of(view.volumes, view.settings)
    top = view.settings["topGy"]
    body = np.flatnonzero(comparison.case.body.any(axis=(0, 2)))
    rows = slice(body[0], body[-1] + 1)
    columns = np.flatnonzero(comparison.case.body.any(axis=(0, 1)))
    box = (slice(None), rows, slice(columns[0], columns[-1] + 1))
    for channel, dose in ((1, comparison.plan_gy), (2, comparison.predicted_gy)):
        np.testing.assert_allclose(volume[..., channel] * top, dose[box], atol=top / 255 / 2 + 1e-4)


def test_gamma_is_told_apart_from_its_absence(comparison: Comparison, view: Viewer) -> None:
    marks = np.rint(255 * volume_of(view.gamma, view.settings))
    there = ~np.isnan(comparison.gamma)
    assert int((marks > 0).sum()) == int(there.sum())
    largest = np.nanmax(comparison.gamma)
    assert (marks.max() - 1) / 254 * view.settings["topGamma"] == pytest.approx(min(largest, 2.0), abs=0.01)


def test_the_viewer_begins_at_the_isocentre(comparison: Comparison, view: Viewer) -> None:
    settings = view.settings
    place = [o + i * s for o, i, s in zip(settings["origin"], settings["start"], settings["spacing"], strict=True)]
    np.testing.assert_allclose(place, comparison.case.grid.index_to_mm(np.array(isocentre_index(comparison.case))))


def test_equal_cases_give_equal_sheets(comparison: Comparison, view: Viewer) -> None:
    assert make_viewer(comparison) == view


def test_a_browser_scrolls_switches_planes_and_reads_doses(
    comparison: Comparison, view: Viewer, repository: Path, tmp_path: Path
) -> None:
    said = walk_in_browser(view, repository, tmp_path)
    case, index = comparison.case, isocentre_index(comparison.case)
    step = view.settings["topGy"] / 255
    assert said["ready"] == "true"
    for key, dose in (("plan", comparison.plan_gy), ("prediction", comparison.predicted_gy)):
        assert reading(said["first"], key) == pytest.approx(float(dose[index]), abs=step / 2 + 0.051)
    assert said["plan"] != said["plain"]
    # Coronal: the head is up and the patient's right on the left, so the corner is the highest z and the lowest x.
    assert said["letters"] == "RLSI"
    z, y, x = place(said["corner"])
    assert z == pytest.approx(case.grid.extent_mm[1][0], abs=0.05)
    assert x == pytest.approx(view.settings["origin"][2], abs=0.05)
    assert y == pytest.approx(view.settings["origin"][1] + 11 * 6.0, abs=0.05)
    assert said["size"][:2] == [view.settings["shape"][2], view.settings["shape"][0]]
    assert said["size"][2] == pytest.approx(view.settings["shape"][2] / view.settings["shape"][0], rel=0.02)
    assert place(said["scrolled"])[1] == pytest.approx(place(said["coronal"])[1] - 6.0, abs=0.11)


def reading(text: str, what: str) -> float:
    found = re.search(rf"{what} (−?[\d.]+) Gy", text)
    assert found, text
    return float(found[1].replace("−", "-"))


def place(text: str) -> list[float]:
    found = [re.search(rf"\b{axis} (−?[\d.]+)", text) for axis in "zyx"]
    assert all(found), text
    return [float(match[1].replace("−", "-")) for match in found if match]


def walk_in_browser(view: Viewer, repository: Path, folder: Path) -> dict[str, Any]:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no headless browser on the PATH ({', '.join(BROWSERS)}): the viewer's script is not run")
    for name in ("viewer.html.j2", "viewer.js.j2"):
        shutil.copy(repository / "reports/templates" / name, folder)
    page = (
        "{% from 'viewer.html.j2' import viewer %}<!doctype html><html><body>{{ viewer(view) }}"
        "<script>{% include 'viewer.js.j2' %}</script><script>{% include 'walk.js' %}</script></body></html>"
    )
    write_text(folder / "page.j2", page)
    write_text(folder / "walk.js", WALK)
    write_text(folder / "page.html", render_page(folder, "page.j2", {"view": view}))
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
        "--window-size=900,900", "--virtual-time-budget=10000", "--dump-dom", (folder / "page.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = re.search(r'data-said="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    said: dict[str, Any] = json.loads(html.unescape(found[1]))
    return said

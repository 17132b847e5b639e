"""The page's viewer: what it is given, and what a browser makes of it."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.browser import Browser, open_browser
from fixtures.comparisons import compared

from doseledger.core.case import Case
from doseledger.core.files import write_text
from doseledger.core.grid import box_around
from doseledger.report.figures.viewer import Viewer, make_viewer
from doseledger.report.figures.views import Comparison, isocentre_index
from doseledger.report.page import render_page

MakeCase = Callable[..., Case]
COLOURS = {"PTV70": "#E02000", "PTV56": "#FFA000", "Rectum": "#006080"}


@dataclass(frozen=True)
class Shown:
    """A case as the template wants it."""

    title: str
    case_id: str
    viewer: Viewer


@pytest.fixture
def comparison(make_case: MakeCase) -> Comparison:
    case = make_case()
    assert case.dose_gy is not None
    predicted = (case.dose_gy * np.linspace(0.9, 1.1, case.grid.shape_zyx[2])).astype(np.float32)
    return compared(case, predicted)


@pytest.fixture
def view(comparison: Comparison) -> Viewer:
    return make_viewer(comparison, COLOURS)


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
    volume = volume_of(view.sheets[0], view.settings)
    top = view.settings["topGy"]
    body = np.flatnonzero(comparison.case.body.any(axis=(0, 2)))
    rows = slice(body[0], body[-1] + 1)
    columns = np.flatnonzero(comparison.case.body.any(axis=(0, 1)))
    box = (slice(None), rows, slice(columns[0], columns[-1] + 1))
    for channel, dose in ((1, comparison.plan_gy), (2, comparison.predicted_gy)):
        np.testing.assert_allclose(volume[..., channel] * top, dose[box], atol=top / 255 / 2 + 1e-4)


def test_gamma_is_told_apart_from_its_absence(comparison: Comparison, view: Viewer) -> None:
    marks = np.rint(255 * volume_of(view.sheets[1], view.settings))
    there = ~np.isnan(comparison.gamma)
    assert int((marks > 0).sum()) == int(there.sum())
    largest = np.nanmax(comparison.gamma)
    assert (marks.max() - 1) / 254 * view.settings["topGamma"] == pytest.approx(min(largest, 2.0), abs=0.01)


def test_the_viewer_begins_at_the_isocentre(comparison: Comparison, view: Viewer) -> None:
    settings = view.settings
    place = [o + i * s for o, i, s in zip(settings["origin"], settings["start"], settings["spacing"], strict=True)]
    np.testing.assert_allclose(place, comparison.case.grid.index_to_mm(np.array(isocentre_index(comparison.case))))


def test_equal_cases_give_equal_sheets(comparison: Comparison, view: Viewer) -> None:
    assert make_viewer(comparison, COLOURS) == view


def test_the_image_is_within_half_a_step_of_its_hu(comparison: Comparison, view: Viewer) -> None:
    levels = np.rint(255 * volume_of(view.sheets[0], view.settings)[..., 0]).astype(int)
    shown = np.array(view.settings["imageHu"])[levels]
    wanted = comparison.case.ct_hu[box_around(comparison.case.body)]
    soft = (wanted >= -200) & (wanted < 300)
    assert soft.any()
    assert np.abs(shown - wanted)[soft].max() <= 2


def test_a_structure_is_one_bit_of_a_sheet_of_eight(comparison: Comparison) -> None:
    case = comparison.case
    nine = [f"s{index}" for index in range(9)]
    masks = np.stack([np.roll(case.body, index, axis=2) for index in range(9)])
    many = replace(
        case, structure_names=(*nine, *case.structure_names), masks=np.concatenate([masks, case.masks]),
        sdf_mm=np.concatenate([np.zeros_like(case.sdf_mm, shape=masks.shape), case.sdf_mm]),
        present=np.concatenate([np.ones(9, bool), case.present]),
    )  # fmt: skip
    view = make_viewer(replace(comparison, case=many), dict.fromkeys(nine, "#000000"))
    assert [item["name"] for item in view.settings["structures"]] == nine
    box = box_around(case.body)
    for index in range(9):
        bits = np.rint(255 * volume_of(view.sheets[2 + index // 8], view.settings)).astype(int)
        np.testing.assert_array_equal(bits >> index % 8 & 1 > 0, masks[index][box])


def test_a_structure_that_is_absent_or_has_no_colour_is_not_offered(comparison: Comparison) -> None:
    case = comparison.case
    absent = replace(case, present=np.array([name != "Rectum" for name in case.structure_names]))
    view = make_viewer(replace(comparison, case=absent), {"PTV70": "#E02000", "Rectum": "#006080"})
    assert view.settings["structures"] == [{"name": "PTV70", "colour": "#E02000"}]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser that is started once."""
    with open_browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def browser(
    started: Browser, comparison: Comparison, view: Viewer, repository: Path, tmp_path: Path
) -> Iterator[Browser]:
    """A browser with the viewer of two cases open: that of the fixtures, opened on, and the same with no dose seen."""
    for name in ("viewer.html.j2", "viewer.js.j2", "style.css.j2"):
        shutil.copy(repository / "reports/templates" / name, tmp_path)
    page = (
        "{% from 'viewer.html.j2' import viewer %}<!doctype html><html>"
        "<style>{% include 'style.css.j2' %}</style><body>{{ viewer(pages, 'second') }}"
        "<div style='height: 3000px'></div><script>{% include 'viewer.js.j2' %}</script></body></html>"
    )
    write_text(tmp_path / "page.j2", page)
    cold = replace(comparison, predicted_gy=np.zeros_like(comparison.predicted_gy))
    pages = [
        Shown("Best case", "first", make_viewer(cold, COLOURS)),
        Shown("Median case", "second", view),
    ]
    write_text(tmp_path / "page.html", render_page(tmp_path, "page.j2", {"pages": pages, **RUNNING}))
    started.open(tmp_path / "page.html")
    started.wait_for("!!document.querySelector('.viewer').dataset.ready")
    started.run(HELPERS)
    yield started
    assert started.complaints == []


RUNNING = {"running_left": "", "running_right": "", "running_alarm": False}
HELPERS = """
globalThis.box = document.querySelector(".viewer");
globalThis.set = (name, value) => {
  const control = box.querySelector("[name=" + name + "]");
  control.value = value;
  control.dispatchEvent(new Event("input"));
};
globalThis.painted = async (panel, plane) => {
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  const canvas = box.querySelectorAll("canvas")[3 * panel + plane];
  const copy = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
  let sum = 0;
  for (let k = 0; k < data.length; k += 1) sum = (31 * sum + data[k]) % 1000000007;
  return sum;
};
globalThis.edges = (panel, plane) => {
  const edge = box.querySelectorAll("canvas")[3 * panel + plane].getBoundingClientRect();
  return [edge.left, edge.top, edge.width, edge.height];
};
"""


def read(browser: Browser) -> str:
    return str(browser.run("box.querySelector('.readout').textContent"))


def click(browser: Browser, panel: int, plane: int, right: float, down: float) -> None:
    """Click in a slice, at a part of its width and height."""
    left, top, width, height = browser.run(f"edges({panel}, {plane})")
    browser.click(left + right * width, top + down * height)


def test_a_browser_opens_on_the_median_case_and_reads_its_doses(
    browser: Browser, comparison: Comparison, view: Viewer
) -> None:
    index, step = isocentre_index(comparison.case), view.settings["topGy"] / 255
    said = read(browser)
    for key, dose in (("plan", comparison.plan_gy), ("prediction", comparison.predicted_gy)):
        assert reading(said, key) == pytest.approx(float(dose[index]), abs=step / 2 + 0.051)
    assert said.endswith("in PTV70") or "in PTV70, " in said
    assert browser.run("box.querySelector('[name=case]').selectedOptions[0].textContent") == "second (median)"
    browser.run("delete box.dataset.ready; set('case', '0')")
    browser.wait_for("!!box.dataset.ready")
    assert reading(read(browser), "prediction") == 0.0


def test_keys_move_crosshair_and_slice_once_the_viewer_has_the_focus(browser: Browser) -> None:
    browser.press("PageUp")
    before = place(read(browser))
    browser.run("box.querySelector('.stage').focus()")
    moves = {"PageUp": (6, 0, 0), "PageDown": (0, 0, 0), "ArrowDown": (0, 6, 0), "ArrowRight": (0, 6, 6),
             "ArrowUp": (0, 0, 6), "ArrowLeft": (0, 0, 0)}  # fmt: skip
    for key, moved in moves.items():
        browser.press(key)
        np.testing.assert_allclose(np.subtract(place(read(browser)), before), moved, atol=0.11, err_msg=key)
    # In the coronal plane the head is up, and a page is a step to the back.
    browser.press("2")
    for key in ("ArrowUp", "PageUp"):
        browser.press(key)
    np.testing.assert_allclose(np.subtract(place(read(browser)), before), (6, 6, 0), atol=0.11)
    assert browser.run("box.querySelector('.slice').textContent") == "Coronal slice"


def test_a_click_in_one_plane_moves_the_other_two(browser: Browser, comparison: Comparison, view: Viewer) -> None:
    before = [browser.run(f"painted({panel}, {plane})") for panel in (0, 1) for plane in (0, 2)]
    # Coronal: the head is up and the patient's right on the left, so the corner is the highest z and the lowest x.
    click(browser, 1, 1, 0.01, 0.01)
    z, y, x = place(read(browser))
    assert z == pytest.approx(comparison.case.grid.extent_mm[1][0], abs=0.05)
    assert x == pytest.approx(view.settings["origin"][2], abs=0.05)
    assert y == pytest.approx(view.settings["origin"][1] + view.settings["start"][1] * 6.0, abs=0.05)
    after = [browser.run(f"painted({panel}, {plane})") for panel in (0, 1) for plane in (0, 2)]
    assert all(a != b for a, b in zip(before, after, strict=True))


def test_slices_keep_the_patients_proportions(browser: Browser, view: Viewer) -> None:
    z, y, x = np.multiply(view.settings["shape"], view.settings["spacing"])
    for plane, ratio in enumerate((x / y, x / z, y / z)):
        _, _, width, height = browser.run(f"edges(0, {plane})")
        assert width / height == pytest.approx(ratio, rel=0.03)
    assert browser.run("edges(0, 0)")[1:] == browser.run("edges(1, 0)")[1:]


def test_the_wheel_scrolls_the_page_until_the_viewer_is_clicked(browser: Browser) -> None:
    first = read(browser)
    left, top, width, height = browser.run("edges(0, 0)")
    middle = left + width / 2, top + height / 2
    browser.turn_wheel(*middle, 20)
    browser.wait_for("scrollY > 0")
    assert read(browser) == first
    browser.run("scrollTo({ top: 0, behavior: 'instant' })")
    browser.wait_for("scrollY === 0")
    click(browser, 0, 0, 0.5, 0.5)
    clicked = read(browser)
    browser.turn_wheel(*middle, 20)
    browser.wait_for(f"box.querySelector('.readout').textContent !== {json.dumps(clicked)}")
    assert browser.run("scrollY") == 0
    assert place(read(browser))[0] == pytest.approx(place(clicked)[0] - 6.0, abs=0.11)
    browser.press("Escape")
    browser.turn_wheel(*middle, 20)
    browser.wait_for("scrollY > 0")


SWITCHES = (
        "box.querySelector('.structures legend input').click()", "box.querySelector('.structures span input').click()",
        "box.querySelector('.isodoses legend input').click()", "set('left', 'gamma')", "set('left', 'none')",
        "set('left', 'difference')", "set('window', '500 1600')", "set('level', '200')", "set('opacity', '0')",
)  # fmt: skip


def test_every_switch_changes_the_picture_and_back(browser: Browser) -> None:
    before = browser.run("painted(0, 0)")
    for change in SWITCHES:
        browser.run(change)
        assert browser.run("painted(0, 0)") != before, change
        browser.run(
            change if "click" in change else "set('left', 'plan'); set('window', '40 400'); set('opacity', '55')"
        )
        assert browser.run("painted(0, 0)") == before, change


def reading(text: str, what: str) -> float:
    found = re.search(rf"{what} (−?[\d.]+) Gy", text)
    assert found, text
    return float(found[1].replace("−", "-"))


def place(text: str) -> list[float]:
    found = [re.search(rf"\b{axis} (−?[\d.]+)", text) for axis in "zyx"]
    assert all(found), text
    return [float(match[1].replace("−", "-")) for match in found if match]

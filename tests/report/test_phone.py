"""Pages on a phone: tables scroll, the page does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fixtures.browser import Browser, open_browser

from doseledger.core.text.sheet import make_table
from doseledger.report.page import render_page, running

PAGE = """{% from "parts.html.j2" import table %}<!doctype html><html><head><style>{% include "style.css.j2" %}</style>
</head><body><div class="box"><ul><li>{{ path }}</li></ul></div>{{ table(wide) }}{{ table(listed) }}</body></html>"""
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
NOTE = "A sentence on what the numbers are, which is longer than a phone is wide and is read without scrolling it."


@pytest.fixture(scope="module")
def phone(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A page with a long path, a table of many columns and a list of long names, as a phone shows it."""
    folder = tmp_path_factory.mktemp("page")
    for name in ("style.css.j2", "parts.html.j2"):
        (folder / name).write_text((repository / "reports/templates" / name).read_text())
    (folder / "page.html.j2").write_text(PAGE)
    goal = "PTV56 minus (PTV70 + 8 mm) D2% ≤ 59.9 Gy"
    wide = make_table(
        "Goals", ("=Goal", *(f"#case_{n:04d}, plan" for n in range(9))), [(goal, *[60.17] * 9)], note=NOTE
    )
    listed = make_table(
        "Training", ("", "Value"), [("MAE in the body, of the validation cases at the best epoch", 1.0)]
    )
    path = "reports/metrics/phantom/seg_organs/" + "a" * 60
    (folder / "page.html").write_text(
        render_page(folder, "page.html.j2", {"path": path, "wide": wide, "listed": listed, **running("a", "b")})
    )
    with open_browser(folder) as browser:
        browser.open(folder / "page.html", 390, 844)
        yield browser


def test_the_page_does_not_scroll_sideways_and_the_table_does(phone: Browser) -> None:
    assert phone.run(SIDEWAYS) <= 0
    assert phone.run("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.scroll'))") > 100


def test_the_note_of_a_wide_table_is_read_without_scrolling(phone: Browser) -> None:
    assert phone.run("document.querySelector('caption .note').getBoundingClientRect().right <= innerWidth")


def test_the_values_of_a_list_stand_on_the_screen_and_a_goal_on_few_lines(phone: Browser) -> None:
    right = "[...document.querySelectorAll('table.list td')].map(e => e.getBoundingClientRect().right)"
    assert phone.run(f"Math.max(...{right}) <= innerWidth")
    assert phone.run("document.querySelector('td.long').getBoundingClientRect().height") < 70

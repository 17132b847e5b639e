"""The page of all runs: it opens offline, says what is dirty, and equal runs give equal bytes."""

from __future__ import annotations

from pathlib import Path

from fixtures.known import assert_known_page

from doseledger.core.files import read_json, write_json
from doseledger.ledger.runs.listing.index import gather_runs
from doseledger.report.runs import write_index


def test_the_page_holds_all_and_asks_for_nothing_outside(project, repository: Path) -> None:
    page = project.root / "reports/runs.html"
    write_index(gather_runs(project.root), page, repository / "reports/templates", project.root)
    text = page.read_text()
    assert_known_page(Path(__file__).parent / "known" / "runs.txt", text)
    assert "http://" not in text
    assert "https://" not in text
    assert 'href="html/phantom/dose_unet/report.html"' in text
    assert "DIRTY TREE" not in text


def test_equal_runs_give_equal_bytes(project, repository: Path) -> None:
    pages = [project.root / name for name in ("a.html", "b.html")]
    for page in pages:
        write_index(gather_runs(project.root), page, repository / "reports/templates", project.root)
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_a_dirty_run_is_told_first_and_is_never_the_best(project, repository: Path) -> None:
    path = project.files.run / "run.json"
    record = read_json(path)
    record["provenance"]["git"]["dirty"] = True
    write_json(path, record)
    page = project.root / "runs.html"
    write_index(gather_runs(project.root), page, repository / "reports/templates", project.root)
    text = page.read_text()
    assert "<strong>DIRTY TREE.</strong> 1 run from a dirty tree" in text
    assert '<td class="bad">passed, DIRTY</td>' in text
    assert "Best so far" not in text


def test_a_project_without_runs_has_a_page(project, repository: Path) -> None:
    write_index([], project.root / "runs.html", repository / "reports/templates", project.root)
    assert "There is no run yet" in (project.root / "runs.html").read_text()

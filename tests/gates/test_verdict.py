"""A verdict's order, its token, and the code that its digest covers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from doseledger.core.errors import BadInput, GateFailed, NotReady
from doseledger.core.files import write_json, write_text
from doseledger.core.project.layout import VerdictPaths
from doseledger.gates.verdict import (
    Finding,
    enforce,
    make_verdict,
    passed_token,
    read_verdict,
    verdict_as_json,
    without_explanations,
    write_verdict,
)


def test_findings_come_in_one_order_whatever_order_they_were_made_in() -> None:
    one = Finding("nan", "case_2", "error", "two")
    two = Finding("nan", "case_1", "error", "one")
    three = Finding("hu_range", "case_3", "warning", "three")
    assert make_verdict("data", "d", [one, two, three], {}) == make_verdict("data", "d", [three, two, one], {})
    assert [f.case_id for f in make_verdict("data", "d", [three, one, two], {}).findings] == [
        "case_1",
        "case_2",
        "case_3",
    ]


def test_a_warning_alone_does_not_fail_a_gate() -> None:
    verdict = make_verdict("data", "d", [Finding("hu_range", "case_1", "warning", "odd")], {})
    assert verdict.ok
    enforce(verdict)
    assert verdict_as_json(verdict)["counts"] == {"error": 0, "warning": 1}


def test_a_failed_gate_spells_out_the_first_findings_and_counts_the_rest() -> None:
    verdict = make_verdict("data", "d", [Finding("nan", f"case_{i}", "error", f"case_{i}: bad") for i in range(8)], {})
    with pytest.raises(GateFailed, match=r"(?s)found 8 error\(s\).*case_0: bad.*and 3 more.*All findings: there\.json"):
        enforce(verdict, Path("there.json"))


@pytest.mark.parametrize("content", ["{}", '{"ok": true}', "[]", '{"ok": true, "digest": "a", "when": "now"}'])
def test_what_is_no_token_is_not_taken_for_one(content: str, tmp_path: Path) -> None:
    write_text(tmp_path / "token.json", content)
    with pytest.raises(NotReady, match="is no token of a gate"):
        passed_token(tmp_path / "token.json", "data")


def test_a_token_that_says_no_stops_whoever_asks(tmp_path: Path) -> None:
    write_text(tmp_path / "token.json", json.dumps({"ok": False, "digest": "a"}))
    with pytest.raises(GateFailed, match="the preflight gate failed"):
        passed_token(tmp_path / "token.json", "preflight")


def test_words_that_explain_a_limit_are_no_part_of_it() -> None:
    value = {"limit": 3, "source": "somewhere", "rules": [{"max": 1, "meta": {"notes": "why", "gate": "volume"}}]}
    assert without_explanations(value) == {"limit": 3, "rules": [{"max": 1, "meta": {"gate": "volume"}}]}


def test_a_verdict_comes_back_as_it_was_written(tmp_path: Path) -> None:
    paths = VerdictPaths(tmp_path / "model.json", tmp_path / "model_findings.json")
    with pytest.raises(NotReady, match=r"no .*model\.json: nothing has been judged yet"):
        read_verdict(paths)
    finding = Finding("nan", "case_1", "error", "bad", {"n": 3})
    verdict = make_verdict("model", "d", [finding], {"metrics": {"ok": True}})
    write_verdict(verdict, paths)
    assert read_verdict(paths) == verdict
    assert json.loads(paths.token.read_text()) == {"ok": False, "digest": "d"}


@pytest.mark.parametrize("token", [{"ok": True, "digest": "d"}, {"ok": False, "digest": "e"}])
def test_a_token_and_findings_that_differ_are_no_verdict(token: dict[str, object], tmp_path: Path) -> None:
    paths = VerdictPaths(tmp_path / "model.json", tmp_path / "model_findings.json")
    write_verdict(make_verdict("model", "d", [Finding("nan", "case_1", "error", "bad")], {}), paths)
    write_json(paths.token, token)
    with pytest.raises(NotReady, match="say different things"):
        read_verdict(paths)
    paths.findings.unlink()
    with pytest.raises(NotReady, match=r"no .*model_findings\.json"):
        read_verdict(paths)


FOUND = {"gate": "nan", "case_id": "case_1", "severity": "error", "message": "bad", "numbers": {}}


@pytest.mark.parametrize(
    "changes",
    [
        {"findings": None}, {"findings": 3}, {"findings": [3]}, {"findings": [{}]},
        {"findings": [{**FOUND, "more": 1}]}, {"findings": [{**FOUND, "gate": 1}]},
        {"findings": [{**FOUND, "severity": "grave"}]},
        {"findings": [{**FOUND, "severity": ["error"]}]}, {"findings": [{**FOUND, "message": None}]},
        {"findings": [{**FOUND, "numbers": 7}]}, {"details": None}, {"details": 7}, {"gate": 7}, {"gate": None},
    ],
    ids=str,
)  # fmt: skip
def test_findings_of_another_form_are_no_verdict(changes: dict[str, object], tmp_path: Path) -> None:
    paths = VerdictPaths(tmp_path / "model.json", tmp_path / "model_findings.json")
    write_verdict(make_verdict("model", "d", [Finding(**FOUND)], {}), paths)  # type: ignore[arg-type]
    assert read_verdict(paths).errors[0].message == "bad"
    write_json(paths.findings, {**json.loads(paths.findings.read_text()), **changes})
    with pytest.raises(NotReady, match=r"model_findings\.json: no findings of a gate \(.*run `dvc repro`"):
        read_verdict(paths)


@pytest.mark.parametrize("file", ["token", "findings"])
@pytest.mark.parametrize("content", ["7", "[1]", '"text"', "null"])
def test_a_file_of_a_verdict_that_is_no_mapping_is_refused(content: str, file: str, tmp_path: Path) -> None:
    paths = VerdictPaths(tmp_path / "model.json", tmp_path / "model_findings.json")
    write_verdict(make_verdict("model", "d", [], {}), paths)
    write_text(getattr(paths, file), content)
    with pytest.raises(BadInput, match=rf"{getattr(paths, file).name}: wanted a mapping, found"):
        read_verdict(paths)

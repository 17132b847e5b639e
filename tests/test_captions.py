"""Each module of the package has a caption: a noun phrase on one line."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"
QUESTIONS = {"what", "which", "whether", "how", "where", "when", "who", "is", "are", "does", "can"}


def test_a_caption_is_short_and_no_question() -> None:
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        caption = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]
        if not 0 < len(caption) <= 80 or caption.split()[0].lower() in QUESTIONS or caption.endswith("?"):
            wrong.append(f"{path.relative_to(SOURCE)}: {caption!r}")
    assert not wrong

"""Warnings of pydicom as findings, by category and without any value."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What pydicom warns of, by category; its own text may hold a value. The first that fits counts.
WARNED = (
    (r"pixel data|Pixel Data|frames", "PixelData of another length than its header says"),
    (r"end of file|EOF", "an element that breaks off"),
    (r"encoding|character set|charset|decode", "text that is not in the character set that the file names"),
    (r"Expected (ex|im)plicit VR|Unknown VR", "elements written otherwise than the transfer syntax says"),
    (r"Unknown DICOM tag", "attributes that no dictionary knows"),
    (r"[Vv]alue|VR|length", "values that break the form of their type"),
)


@dataclass
class Heard:
    """What pydicom warned of while files were read, counted by category."""

    counts: Counter[str] = field(default_factory=Counter)

    def note(self, message: str) -> None:
        """Count a warning."""
        fitting = (caption for pattern, caption in WARNED if re.search(pattern, message))
        self.counts[next(fitting, "something else that breaks the standard")] += 1

    def notes(self) -> list[str]:
        """Return what was heard, a sentence a category, without any value."""
        return [f"the files hold {caption}" for caption in sorted(self.counts)]


@contextmanager
def lenient() -> Iterator[Heard]:
    """Take pydicom's warnings of values that break their type's form for findings: readers judge what they use.

    Yields
    ------
    Heard
        Their categories; their own texts may hold a patient's values.
    """
    heard = Heard()
    with warnings.catch_warnings():
        warnings.filterwarnings("always", module=r"pydicom(\.|$)")
        show = warnings.showwarning

        def listen(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
            if "pydicom" in Path(filename).parts:
                heard.note(str(message))
            else:
                show(message, category, filename, lineno, file, line)

        warnings.showwarning = listen
        yield heard

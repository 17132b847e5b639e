"""Ranges of anatomical variation (anatomy_ranges.yaml), and draws from them."""

from __future__ import annotations

from importlib import resources

import numpy as np
from pydantic import TypeAdapter

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml
from doseledger.core.schema import Block


class TraitRange(Block):
    """How one number varies between patients; uniform where sd is 0."""

    mean: float
    sd: float
    low: float
    high: float
    unit: str
    source: str

    def draw(self, rng: np.random.Generator) -> float:
        """Return a draw between low and high."""
        if self.sd == 0.0:
            return float(rng.uniform(self.low, self.high))
        while not self.low <= (value := float(rng.normal(self.mean, self.sd))) <= self.high:
            pass
        return value


def load_ranges() -> dict[str, TraitRange]:
    """Return the ranges of anatomy_ranges.yaml.

    Raises
    ------
    BadInput
        If a range holds no value.
    """
    with resources.as_file(resources.files("doseledger.phantom") / "anatomy_ranges.yaml") as path:
        ranges = TypeAdapter(dict[str, TraitRange]).validate_python(read_yaml(path))
    wrong = [name for name, r in ranges.items() if not r.low < r.high or (r.sd and not r.low <= r.mean <= r.high)]
    if wrong:
        raise BadInput(f"anatomy_ranges.yaml: low, mean and high must rise in {', '.join(wrong)}")
    return ranges

"""Contracts: those that are shipped, and every way to write one that makes no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from doseledger.core.errors import BadInput
from doseledger.parity.contract import load_contract

GOOD: dict[str, Any] = {
    "name": "toy",
    "title": "toys",
    "source": "this test",
    "files": {"pattern": r".*\.npz"},
    "arrays": {
        "images": {"describes": "pictures", "kinds": ["real"], "axes": ["n", "y", "x"], "image": ["y", "x"]},
        "label": {"describes": "class", "kinds": ["integer"], "axes": ["n"]},
    },
}


def write(path: Path, **changes: Any) -> Path:
    content = {**GOOD, "arrays": {name: dict(rules) for name, rules in GOOD["arrays"].items()}}
    for key, value in changes.items():
        target: Any = content
        *above, last = key.split("__")
        for part in above:
            target = target[part]
        target[last] = value
    with path.open("w") as stream:
        YAML().dump(content, stream)
    return path


def test_every_shipped_contract_loads(repository: Path) -> None:
    names = [load_contract(path).name for path in sorted((repository / "validation/contracts").glob("*.yaml"))]
    assert names == ["case", "control_points", "image_stamps", "prediction", "ptychography"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arrays__images__axis": 1}, r"arrays\.images\.axis: Extra inputs"),
        ({"arrays__images__kinds": ["float"]}, r"arrays\.images\.kinds\.0: .*found 'float'"),
        ({"arrays__images__dtypes": ["float33"]}, r"arrays\.images\.dtypes: .*'float33' is no type of numpy"),
        ({"arrays__images__dtypes": ["float32"]}, r"arrays\.images\.kinds: wanted one of `kinds`"),
        ({"arrays__images__axes": ["y", "y", "x"]}, r"arrays\.images\.axes: .*names one axis twice"),
        ({"arrays__images__image": ["n", "y"]}, r"arrays\.images\.image: .*wanted the last of the axes"),
        ({"arrays__images__min": 2, "arrays__images__max": 1}, r"arrays\.images\.min: found 2, which is above max 1"),
        ({"arrays__images__groups": {}}, r"arrays\.images\.groups: wanted exactly one of axis, labels and masks"),
        ({"arrays__images__groups": {"axis": "z"}}, r"arrays\.images\.groups\.axis: found 'z'"),
        ({"arrays__images__groups": {"labels": "klass"}}, r"arrays\.images\.groups\.labels: no array 'klass'"),
        (
            {"arrays__images__groups": {"labels": "images"}},
            r"groups\.labels: images has the axes \['n', 'y', 'x'\], wanted",
        ),
        (
            {"arrays__images__missing": {"flags": "there", "flag_axes": ["n"]}},
            r"arrays\.images\.missing\.flags: no array 'there'",
        ),
        (
            {"arrays__images__missing": {"flags": "label", "flag_axes": ["y"]}},
            r"arrays\.images\.missing\.flag_axes: found \['y'\]",
        ),
        ({"arrays__images__normalise": {"by": "constant"}}, r"arrays\.images\.normalise\.divisor: belongs to"),
        ({"sizes": {"q": 3}}, r"sizes: no array has an axis q; axes are n, x, y"),
        ({"same_in_all_files": ["q"]}, r"same_in_all_files: no array has an axis q"),
        ({"files": {"pattern": "("}}, r"files\.pattern: .*not a regular expression"),
        ({"arrays": {}}, r"arrays: "),
        ({"name": "other"}, r"name: found 'other', wanted 'toy'"),
        (
            {"parity": [{"array": "q", "measure": "ssim", "operator": ">=", "limit": 1, "source": "s"}]},
            r"parity\.0\.array: no array 'q'",
        ),
        (
            {"parity": [{"array": "label", "measure": "ssim", "operator": ">=", "limit": 1, "source": " "}]},
            r"parity\.0\.source: ",
        ),
    ],
)
def test_a_malformed_contract_is_refused_by_its_key(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert load_contract(write(tmp_path / "toy.yaml")).name == "toy"
    with pytest.raises(BadInput, match=message):
        load_contract(write(tmp_path / "toy.yaml", **changes))


def test_a_contract_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text("- 1\n")
    with pytest.raises(BadInput, match="Input should be a valid dictionary"):
        load_contract(tmp_path / "toy.yaml")

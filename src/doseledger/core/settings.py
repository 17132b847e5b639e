"""params.yaml as frozen, typed blocks, without a second default in code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml
from doseledger.core.pool.cluster import Scale
from doseledger.core.schema import Block, Reason, load_block

Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class PhantomSettings(Block):
    """The synthetic cohort; see phantom/cohort.py."""

    n_patients: Count
    seed: int
    in_plane_pixels: Count
    segments_per_arc: Count
    iterations: Count
    attempts: Count
    dose_grid_mm: Positive
    near_bowel_share: Share


class IngestSettings(Block):
    """Conversion of raw data to cases."""

    accept_failed: dict[str, Reason]


class SplitSettings(Block):
    """How patients are dealt: by `fractions`, by k `folds`, or with one `group` held out at a time."""

    seed: int
    kind: Literal["fractions", "folds", "leave_one_group_out"]
    fractions: dict[Literal["train", "val", "test"], Share]
    n_folds: Annotated[int, Field(ge=2)]
    n_repeats: Count
    group_column: Literal["group", "site", "pseudonym"]

    @model_validator(mode="after")
    def _fractions_make_sense(self) -> SplitSettings:
        if set(self.fractions) != {"train", "val", "test"} or abs(sum(self.fractions.values()) - 1.0) > 1e-6:
            raise ValueError(f"fractions of train, val and test must add up to 1, found {self.fractions}")
        if self.fractions["train"] <= max(self.fractions["val"], self.fractions["test"]):
            raise ValueError(f"train must be the largest part: are the fractions inverted? found {self.fractions}")
        return self


class WatchdogSettings(Block):
    """When a training is taken for dead, and how often it is started again; see learn/watch/watchdog.py."""

    enabled: bool
    silence_seconds: Positive
    first_batch_seconds: Positive
    tries: Count


class TrainSettings(Block):
    """How every model is trained, whatever its recipe: processes, records, the watchdog."""

    devices: Count
    nodes: Count
    checkpoint_steps: CountOrZero
    logger: Literal["csv", "tensorboard", "mlflow", "wandb"]
    watchdog: WatchdogSettings


class GammaSettings(Block):
    """One gamma criterion; see dosimetry/gamma/map.py."""

    gamma_percent: Positive
    gamma_mm: Positive
    cutoff_percent: Annotated[float, Field(ge=0, lt=100)]
    local: bool
    interp_fraction: Count
    max_gamma: Positive


class EvaluateSettings(Block):
    """What is measured on each test case."""

    gamma: list[GammaSettings]
    verify_gamma_points: CountOrZero
    surface_tolerance_mm: Annotated[float, Field(gt=0)]
    dvh_statistics: dict[Literal["target", "organ"], list[str]]

    @model_validator(mode="after")
    def _criteria_differ(self) -> EvaluateSettings:
        # Each has a column of that name; the second would take the first one's place.
        kinds = [(gamma.gamma_percent, gamma.gamma_mm, "local" if gamma.local else "global") for gamma in self.gamma]
        for percent, mm, kind in kinds:
            if kinds.count((percent, mm, kind)) > 1:
                raise ValueError(
                    f"gamma {percent:g} %/{mm:g} mm {kind} stands there twice; keep one: the tables tell criteria "
                    "apart by percent, mm and kind alone, not by cutoff"
                )
        return self


class DeliverSettings(Block):
    """Plans made of predicted doses; see deliver/cohort.py."""

    models: list[str]
    machine: str
    seed: int
    segments_per_arc: Count
    iterations: Count
    n_points: Count
    mu_weight: Annotated[float, Field(ge=0)]
    edge_weight: Annotated[float, Field(ge=0)]
    outline_margin_mm: Annotated[float, Field(ge=0)]


class ReportSettings(Block):
    """The report."""

    figure_dpi: Count


class Settings(Block):
    """All of params.yaml. Blocks named in `models` are read with `learn`'s own types, over `model_base`."""

    seed: int
    lr: Positive
    cohort: str
    models: Annotated[list[str], Field(min_length=1)]
    bases: dict[str, str]
    part_of: dict[str, str]
    contours: dict[str, str]
    fold: CountOrZero
    repeat: CountOrZero
    scale: Scale
    phantom: PhantomSettings
    ingest: IngestSettings
    splits: SplitSettings
    train: TrainSettings
    evaluate: EvaluateSettings
    deliver: DeliverSettings
    report: ReportSettings
    model_base: dict[str, Any]
    blocks: dict[str, dict[str, Any]]

    @model_validator(mode="after")
    def _names_are_known(self) -> Settings:
        strangers = [name for name in self.models if name not in self.blocks]
        if strangers:
            raise ValueError(
                f"models {strangers} have no block of their own in params.yaml; "
                "`doseledger recipe use NAME` puts a ready-made one in"
            )
        if idle := [name for name in self.deliver.models if name not in self.models]:
            raise ValueError(f"deliver.models names {idle}, which are not trained; wanted some of {self.models}")
        for name, base in self.bases.items():
            if name not in self.models or base not in self.models or name in self._behind(base):
                raise ValueError(
                    f"bases: {name} starts from {base}; both must be among the models that are trained "
                    f"({', '.join(self.models)}), and {base} must not start from {name}"
                )
        self._check_parts()
        for name in self.models:
            parent = self.blocks[name].get("init_from", self.model_base.get("init_from"))
            if isinstance(parent, str) and parent in self.blocks and self.bases.get(name) != parent:
                raise ValueError(
                    f"{name}: init_from {parent} is a model of these settings; write `{name}: {parent}` under bases "
                    f"too, so that its training waits for it, or name a registered version ({parent}@v0.1.0)"
                )
        for name, drawer in self.contours.items():
            kinds = [self.blocks[one].get("kind") if one in self.models else None for one in (name, drawer)]
            if None in kinds or kinds[0] == "segmentation" or kinds[1] != "segmentation":
                raise ValueError(
                    f"contours: {name} is given those of {drawer}; wanted a dose model and a segmentation, both among "
                    f"the models that are trained ({', '.join(self.models)})"
                )
        return self

    def _check_parts(self) -> None:
        """Refuse a part of no mean, one that stands on its own mean, and a mean that weighs other parts."""
        for part, mean in self.part_of.items():
            trained = part in self.models and mean in self.models
            if not trained or self.blocks[mean].get("kind") != "mean" or mean in self._behind(part):
                raise ValueError(
                    f"part_of: {part} is a part of {mean}; wanted a model of kind mean, both among the models that are "
                    f"trained ({', '.join(self.models)}), and {part} must not start from {mean}"
                )
        for name in (name for name in self.models if self.blocks[name].get("kind") == "mean"):
            weighed, parts = sorted(self.blocks[name].get("weights") or {}), sorted(self.parts_of(name))
            if weighed != parts:
                raise ValueError(
                    f"{name}: weights names {', '.join(weighed) or 'no part'}, part_of "
                    f"{', '.join(parts) or 'none'}; name the same in both, so that {name} waits for its parts"
                )

    def parts_of(self, name: str) -> list[str]:
        """Return the models that a mean is made of; none of any other model."""
        return [part for part, mean in self.part_of.items() if mean == name]

    def _behind(self, name: str) -> set[str]:
        """A model, what it starts from or is made of, and so on; a circle is gone round once."""
        found, waiting = set[str](), [name]
        while waiting:
            one = waiting.pop()
            if one not in found:
                found.add(one)
                waiting += [*self.parts_of(one), *([self.bases[one]] if one in self.bases else [])]
        return found

    def model(self, name: str) -> dict[str, Any]:
        """Return a model's block as it stands there; `learn.kinds.recipe_of` merges and types it.

        Raises
        ------
        BadInput
            If there is no such block.
        """
        if name not in self.blocks:
            raise BadInput(f"params.yaml has no block {name!r}; model blocks there: {', '.join(sorted(self.blocks))}")
        return self.blocks[name]


def load_settings(path: Path) -> Settings:
    """Return params.yaml as typed settings.

    Raises
    ------
    BadInput
        Naming each key that is missing, unknown or of the wrong type, `lr: abc` included.
    """
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise BadInput(f"{path}: wanted a mapping of settings, found {type(raw).__name__}")
    known = set(Settings.model_fields) - {"blocks"}
    # A model's block is any other mapping with a `kind`: what is neither is a misspelt key and is refused by name.
    blocks = {
        key: value for key, value in raw.items() if key not in known and isinstance(value, dict) and "kind" in value
    }
    rest = {key: value for key, value in raw.items() if key not in blocks}
    return load_block(Settings, {**rest, "blocks": blocks}, str(path))

"""A cohort's cases for anybody's own LightningModule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from doseledger.core.errors import BadInput, GateFailed, NotReady
from doseledger.core.files import read_json
from doseledger.core.project.layout import Layout, find_root
from doseledger.core.settings import Settings, load_settings
from doseledger.core.tables import SPLITS, read_table
from doseledger.learn.data.inputs import OpenCase, case_files, open_case
from doseledger.learn.data.patches import Sample, case_loader, patch_loader
from doseledger.learn.kinds import make_family, recipe_of
from doseledger.learn.recipes.dose import CommonRecipe
from doseledger.learn.run import DOSE_READER


class CaseDataModule(pl.LightningDataModule):
    """Training patches and whole cases of a project's cohort, as a model's block of params.yaml has them.

    Parameters
    ----------
    model
        A block of params.yaml: its `inputs`, `sampling` and `loader` say what a batch holds.
    root
        The project's folder; None for the one that the working folder belongs to.
    cohort, seed, fold, repeat
        Others than those of the settings.

    Raises
    ------
    BadInput
        If there is no such block, or its kind trains on no patches.

    Notes
    -----
    A batch is a mapping: `image` (n, channel, z, y, x), `condition` (n, number), `dose` (n, 1, z, y, x) in units of
    `spec.recipe.dose_scale_gy`, `valid_dose` and `body` (n, 1, z, y, x), `masks` (n, structure, z, y, x), `spacing_mm`,
    `case_id`; of a segmentation `image`, `label` (n, 1, z, y, x) and `case_id`. Training gives patches, each by a key
    of seed, epoch and position; validation and test give whole cases, one at a time.

    The data gate holds here too: its verdict must be there and green, and each case's SHA256 must be the one in the
    splits. With several devices give the Trainer `use_distributed_sampler=False` or one device a process.

    Examples
    --------
    >>> data = CaseDataModule("dose_unet")  # doctest: +SKIP
    >>> pl.Trainer(max_epochs=10).fit(MyNetwork(data.spec.n_channels), data)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str,
        *,
        root: Path | None = None,
        cohort: str | None = None,
        seed: int | None = None,
        fold: int | None = None,
        repeat: int | None = None,
    ) -> None:
        super().__init__()
        self.settings: Settings = load_settings(Layout(root or find_root(), "").params)
        self.layout = Layout(root or find_root(), cohort or self.settings.cohort)
        recipe = recipe_of(self.settings, model)
        if not isinstance(recipe, CommonRecipe):
            raise BadInput(f"{model}: its kind is {recipe.kind}, which trains on no patches; name a network's block")
        self.recipe: Any = recipe
        self.seed = self.settings.seed if seed is None else seed
        self.fold = self.settings.fold if fold is None else fold
        self.repeat = self.settings.repeat if repeat is None else repeat
        # What a network stands on is its own affair: all that give doses read cases alike.
        self._reader = make_family(recipe, None).reader if recipe.kind == "segmentation" else DOSE_READER
        self._opened: dict[str, list[OpenCase]] = {}
        self._spec: Any = None

    def cases(self, part: str) -> list[OpenCase]:
        """Return the cases of `train`, `val` or `test`, each compared with its SHA256 in the splits.

        Raises
        ------
        NotReady
            If the data gate has not judged yet, the part is empty, or a case is absent or another.
        GateFailed
            If the gate said no.
        """
        if part not in self._opened:
            self._require_gate()
            physics = self.layout.physics if self.recipe.physics else None
            table = read_table(self.layout.splits, SPLITS)
            files = case_files(self.layout.cases, table, part, fold=self.fold, repeat=self.repeat, physics=physics)
            self._opened[part] = [open_case(file) for file in files]
        return self._opened[part]

    @property
    def spec(self) -> Any:
        """What a network of these cases is given: `n_channels`, `n_conditions`, `structure_names` and the like."""
        if self._spec is None:
            self._spec = self._reader.spec_of([*self.cases("train"), *self.cases("val")], self.recipe.inputs)
        return self._spec

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return batches of patches, drawn and varied as the recipe says."""
        patches = self._reader.patches(self.cases("train"), self.spec, self.recipe, self.seed)
        return patch_loader(patches, self.recipe)

    def val_dataloader(self) -> DataLoader[Sample]:
        """Return whole validation cases."""
        return self._whole("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        """Return whole test cases."""
        return self._whole("test")

    def _whole(self, part: str) -> DataLoader[Sample]:
        read: Callable[..., Any] = self._reader.whole
        return case_loader(read(self.cases(part), self.spec, self.recipe), self.recipe.loader)

    def _require_gate(self) -> None:
        cohort, verdict = self.layout.cohort, self.layout.data_verdict
        if not verdict.token.is_file():
            raise NotReady(f"the data gate has not judged {cohort} yet; run `doseledger check data`")
        if read_json(verdict.token).get("ok") is not True:
            raise GateFailed(f"the data gate of {cohort} failed: {verdict.findings}")

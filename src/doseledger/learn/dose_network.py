"""A dose model's whole network: what its recipe's network says, on top of a dose that is known without it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from doseledger.core.case import map_member
from doseledger.core.errors import BadCase, BadInput
from doseledger.learn.inputs import OFFSET_SCALE_MM, InputSpec, OpenCase
from doseledger.learn.networks import build_network
from doseledger.learn.recipe import CommonTrained, TrainedRecipe

# Where training begins from: how far outside a target half of its dose is left, how wide that edge is, and how much the
# word of a fresh network counts, which is chance. All three are learned.
MARGIN_MM = 8.0
EDGE_MM = 2.5
FIRST_GAIN = 0.2
# The mean dose's lattice: coarser than a case, as a mean over patients has no detail below a few mm.
STEP_MM = 5.0
# How far the lattice reaches from the middle of the targets: along z and y to either side, along x to one, as left and
# right are averaged. A pelvis or a head and neck, whole.
REACH_MM = (180.0, 180.0, 260.0)


class MeanDose(nn.Module):
    """(image, condition) -> the prescribed dose inside the targets, the training patients' mean dose elsewhere.

    Parameters
    ----------
    spec
        Tells where the image has the place about the targets and the targets' signed distances, and the condition their
        prescriptions.

    Notes
    -----
    A target of prescription p gives p · σ((m - s)/w) at s mm outside it; m and w are learned, one of each a target.
    Elsewhere there is the mean over the training patients of dose ÷ main prescription at the same place about the
    targets (`place.TargetPlace`), times the patient's own main prescription. The highest holds. A target that is absent
    gives nothing.
    """

    lattice: Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.first_offset, self.distance_mm = spec.first_offset, spec.recipe.sdf_scale_mm
        # Presence stands first among the conditions, in the order of the structures.
        self.presence = [spec.structure_names.index(name) for name in spec.target_names]
        self.channels = [spec.first_structure + index for index in self.presence]
        self.prescribed = spec.prescribed
        n_targets = len(spec.target_names)
        self.margin_mm = nn.Parameter(torch.full((n_targets,), MARGIN_MM))
        self.log_edge_mm = nn.Parameter(torch.full((n_targets,), math.log(EDGE_MM)))
        self.register_buffer("lattice", torch.zeros(_lattice_shape()))

    def fit(self, cases: Iterable[OpenCase]) -> None:
        """Take the mean of training cases' doses; their left and right sides count alike.

        Raises
        ------
        BadCase
            If a dose is not finite: it would spoil every case's.
        BadInput
            If there is no case with a target and a dose.
        """
        total, count = np.zeros(_lattice_shape()), np.zeros(_lattice_shape(), dtype=np.int64)
        for case in cases:
            for side in (-1.0, 1.0):
                dose, known = _dose_on_lattice(case, side)
                if not np.isfinite(dose).all():
                    raise BadCase(case.case_id, "its dose is not finite; no mean can be taken with it: ingest it again")
                total += dose
                count += known
        if not count.any():
            raise BadInput("no training case with a target and a dose to take a mean of; look at the splits")
        self.lattice.copy_(torch.from_numpy(total / np.maximum(count, 1)))

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Return the dose (batch, 1, z, y, x) in units of the dose scale."""

        def of_target(values: Tensor) -> Tensor:
            return values.view(-1, len(self.channels), 1, 1, 1)

        distance_mm = image[:, self.channels] * self.distance_mm
        edge = torch.sigmoid((of_target(self.margin_mm) - distance_mm) / of_target(self.log_edge_mm.exp()))
        prescribed = of_target(condition[:, self.prescribed] * condition[:, self.presence])
        main = prescribed.amax(dim=1, keepdim=True)
        dose: Tensor = torch.maximum((edge * prescribed).amax(dim=1, keepdim=True), main * self._mean(image))
        return dose

    def _mean(self, image: Tensor) -> Tensor:
        z, y, x = (image[:, self.first_offset + axis] * OFFSET_SCALE_MM for axis in range(3))
        # grid_sample takes (x, y, z), each from -1 at the first point of the lattice to 1 at its last.
        place = torch.stack([x / REACH_MM[2] * 2 - 1, y / REACH_MM[1], z / REACH_MM[0]], dim=-1)
        lattice = self.lattice.to(image.dtype).expand(len(image), 1, *self.lattice.shape)
        return nn.functional.grid_sample(lattice, place, mode="bilinear", padding_mode="border", align_corners=True)


def _lattice_shape() -> tuple[int, int, int]:
    z, y, x = (round(reach / STEP_MM) for reach in REACH_MM)
    return 2 * z + 1, 2 * y + 1, x + 1


def _dose_on_lattice(case: OpenCase, side: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Dose ÷ main prescription of the voxel nearest to each point of the lattice on one side, and where it is known."""
    shape = _lattice_shape()
    dose, known = np.zeros(shape), np.zeros(shape, dtype=bool)
    if case.place is None:
        return dose, known
    along, front, aside = (STEP_MM * np.arange(n) for n in shape)
    (z_mm, y_mm, x_mm), (centre_y, centre_x) = case.spacing_mm, case.place.centre_yx
    places = (
        case.place.slices_at(along - REACH_MM[0], z_mm),
        centre_y + (front - REACH_MM[1]) / y_mm,
        centre_x + side * aside / x_mm,
    )
    points = [np.rint(place).astype(np.intp) for place in places]
    inside = [(point >= 0) & (point < n) for point, n in zip(points, case.shape_zyx, strict=True)]
    there = np.ix_(*inside)
    voxels = np.ix_(*(point[keep] for point, keep in zip(points, inside, strict=True)))
    defined = (map_member(case.file.path, "valid_dose")[voxels] > 0) & (map_member(case.file.path, "body")[voxels] > 0)
    known[there] = defined
    dose[there] = np.where(defined, map_member(case.file.path, "dose_gy")[voxels], 0.0) / case.main_prescription_gy
    return dose, known


class OverPrior(nn.Module):
    """A network that says what to add to the dose of a `MeanDose`."""

    def __init__(self, network: nn.Module, prior: MeanDose) -> None:
        super().__init__()
        self.network, self.prior = network, prior
        self.gain = nn.Parameter(torch.tensor(FIRST_GAIN))

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Return all the doses (batch, dose, z, y, x) that the network gives, each on top of the prior."""
        result: Tensor = self.gain * self.network(image, condition) + self.prior(image, condition)
        return result


def dose_network(recipe: CommonTrained, spec: InputSpec, fit_to: Sequence[OpenCase] = ()) -> nn.Module:
    """Return a dose model's network with fresh weights: (image, condition) -> dose in units of the dose scale.

    Parameters
    ----------
    fit_to
        The training cases, whose mean dose the recipe may ask for; none where weights are loaded next, as they hold it.

    Raises
    ------
    BadInput
        If the recipe is another family's.
    """
    if not isinstance(recipe, TrainedRecipe):
        raise BadInput(f"its kind is {recipe.kind}, wanted dose")
    network = build_network(spec.n_channels, spec.n_conditions, recipe.network)
    if recipe.prior == "none":
        return network
    prior = MeanDose(spec)
    if fit_to:
        prior.fit(fit_to)
    return OverPrior(network, prior)

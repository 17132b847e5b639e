"""The prior dose: prescription inside targets, training patients' mean elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.types import Floats, Indices, IntTriple, Singles, Triple
from doseledger.learn.data.inputs import OFFSET_SCALE_MM, InputSpec, OpenCase
from doseledger.learn.data.patches import read_sample

# Where training begins from: how far outside a target half of its dose is left, and how wide that edge is. Both are
# learned.
MARGIN_MM = 8.0
EDGE_MM = 2.5


@dataclass(frozen=True)
class Lattice:
    """Points over three coordinates in mm: the first, the step and how many along each."""

    first_mm: Triple
    step_mm: Triple
    points: IntTriple

    def nearest(self, coordinates_mm: Tensor) -> Indices:
        """Return the flat index of the point nearest to each of some coordinates (voxel, 3)."""
        first, step, last = self._tensors(coordinates_mm)
        index = ((coordinates_mm - first) / step).round().clamp(torch.zeros_like(last), last)
        return np.ravel_multi_index(tuple(index.numpy().astype(np.intp).T), self.points)

    def interpolate(self, values: Tensor, coordinates_mm: Tensor) -> Tensor:
        """Return the lattice's values (batch, 1, z, y, x) at coordinates (batch, z, y, x, 3); its edge holds beyond."""
        first, step, last = self._tensors(coordinates_mm)
        # grid_sample takes the last axis first, each from -1 at the first point to 1 at the last.
        place = (2 * (coordinates_mm - first) / (step * last) - 1).flip(-1)
        batch = values.to(place.dtype).expand(len(place), 1, *self.points)
        return nn.functional.grid_sample(batch, place, mode="bilinear", padding_mode="border", align_corners=True)

    def _tensors(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """First point, step, and index of the last point along each coordinate."""
        last = [n - 1 for n in self.points]
        return like.new_tensor(self.first_mm), like.new_tensor(self.step_mm), like.new_tensor(last)


# Coarser than a case, as a mean over patients has no detail below a few mm. By place: along z between and beyond the
# targets' ends, along y and to either side from the main one's centre; a pelvis or a head and neck, whole.
BY_PLACE = Lattice((-180.0, -180.0, 0.0), (5.0, 5.0, 5.0), (73, 73, 53))
# By distance: the same along z, then signed distances to the main target and to the nearest, as far as they are told.
BY_DISTANCE = Lattice((-120.0, -20.0, -20.0), (10.0, 5.0, 5.0), (25, 15, 15))
LATTICES = (BY_PLACE, BY_DISTANCE)
# Of a larger cohort so many cases, evenly spread, tell a mean well enough; each costs about a second.
MOST_CASES = 200


@dataclass(frozen=True)
class CaseVoxels:
    """A training case's voxels with a known dose: dose ÷ main prescription, and the nearest point of each lattice."""

    case_id: str
    dose: Singles
    points: tuple[Indices, ...]


class Mean:
    """Mean dose at each point of a lattice, of cases that can be added and taken away."""

    def __init__(self, lattice: Lattice) -> None:
        self.lattice = lattice
        size = math.prod(lattice.points)
        self.total, self.count = np.zeros(size), np.zeros(size, dtype=np.int64)

    def add(self, points: Indices, dose: Singles, sign: int = 1) -> None:
        """Add voxels at their points; a sign of -1 takes them away."""
        self.total += sign * np.bincount(points, dose, len(self.total))
        self.count += sign * np.bincount(points, minlength=len(self.count))

    def values(self) -> Floats:
        """Return the mean at each point (flat); where no voxel fell, that of the nearest point that has one."""
        known = (self.count > 0).reshape(self.lattice.points)
        nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
        flat = np.ravel_multi_index(tuple(nearest), self.lattice.points).ravel()
        mean: Floats = self.total[flat] / self.count[flat]
        return mean


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
    Elsewhere there is the mean over the training patients' voxels of dose ÷ main prescription, times the patient's own
    main prescription. Two such means are mixed: that of the same place about the targets (`BY_PLACE`), which suits
    patients with one anatomy, and that of the same distance from the targets (`BY_DISTANCE`), which suits targets that
    lie anywhere. `place_share` is the first one's share: the one that tells each training patient's dose best from the
    others', in least squares (stacking: Wolpert, Neural Networks 5:241, 1992). The highest of targets and mean holds.
    A target that is absent gives nothing.
    """

    by_place: Tensor
    by_distance: Tensor
    place_share: Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.spec = spec
        # Presence stands first among the conditions, in the order of the structures.
        self.presence = [spec.structure_names.index(name) for name in spec.target_names]
        self.channels = [spec.first_structure + index for index in self.presence]
        n_targets = len(spec.target_names)
        self.margin_mm = nn.Parameter(torch.full((n_targets,), MARGIN_MM))
        self.log_edge_mm = nn.Parameter(torch.full((n_targets,), math.log(EDGE_MM)))
        self.register_buffer("by_place", torch.zeros(BY_PLACE.points))
        self.register_buffer("by_distance", torch.zeros(BY_DISTANCE.points))
        self.register_buffer("place_share", torch.tensor(0.0))
        # Means without one of the training cases, by its name: of use in training alone, and so no part of the weights.
        self.left_out: dict[str, tuple[Tensor, ...]] = {}

    def fit(self, cases: Sequence[OpenCase], *, leave_out: bool = False) -> None:
        """Take the means of training cases' doses, left and right alike, and find how to mix them.

        Every case is read twice: for the means, and to ask how well the others' means tell it. Of more than
        `MOST_CASES` so many are taken.

        Parameters
        ----------
        leave_out
            Keep the means without each of the cases too, 1.1 MB a case, for `forward` to tell that case by.

        Raises
        ------
        BadCase
            If a dose is not finite: it would spoil every case's.
        BadInput
            If there is no case with a target and a dose.
        """
        if len(cases) > MOST_CASES:
            cases = [cases[i] for i in np.linspace(0, len(cases) - 1, MOST_CASES).astype(int)]
        means = [Mean(lattice) for lattice in LATTICES]
        n_cases = 0
        for voxels in self._voxels_of(cases):
            n_cases += 1
            for mean, points in zip(means, voxels.points, strict=True):
                mean.add(points, voxels.dose)
        if not n_cases:
            raise BadInput("no training case with a target and a dose to take a mean of; look at the splits")
        for buffer, mean in zip((self.by_place, self.by_distance), means, strict=True):
            buffer.copy_(torch.from_numpy(mean.values()).view_as(buffer))
        # One case alone has no others to ask, and the next one's targets may lie anywhere.
        keep = self._keep_left_out if leave_out and n_cases > 1 else None
        self.place_share.fill_(_place_share(self._voxels_of(cases), means, keep) if n_cases > 1 else 0.0)

    def _keep_left_out(self, case_id: str, values: list[Floats]) -> None:
        self.left_out[case_id] = tuple(
            torch.from_numpy(value.astype(np.float32)).view(lattice.points)
            for value, lattice in zip(values, LATTICES, strict=True)
        )

    def forward(self, image: Tensor, condition: Tensor, case_ids: Sequence[str] = ()) -> Tensor:
        """Return the dose (batch, 1, z, y, x) in units of the dose scale.

        Parameters
        ----------
        case_ids
            Of training: each case of the batch is told by the others' means, where `fit` has kept them.
        """
        prescribed, distance_mm = self._targets(image, condition)
        coordinates = self._coordinates(image, prescribed, distance_mm)

        def of_target(values: Tensor) -> Tensor:
            return values.view(1, -1, 1, 1, 1)

        edge = torch.sigmoid((of_target(self.margin_mm) - distance_mm) / of_target(self.log_edge_mm.exp()))
        by_place, by_distance = (
            lattice.interpolate(values, at_mm)
            for lattice, values, at_mm in zip(LATTICES, self._means_for(case_ids), coordinates, strict=True)
        )
        mean = torch.lerp(by_distance, by_place, self.place_share.to(by_place.dtype))
        main = prescribed.amax(dim=1, keepdim=True)
        dose: Tensor = torch.maximum((edge * prescribed).amax(dim=1, keepdim=True), main * mean)
        return dose

    def _means_for(self, case_ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The mean of each lattice: one for all, or one a case of the batch without that case's own dose."""
        means = (self.by_place, self.by_distance)
        if not self.left_out or not case_ids:
            return means
        each = [self.left_out.get(case_id, means) for case_id in case_ids]
        place, distance = (
            torch.stack([values.to(mean.device) for values in column])[:, None]
            for mean, column in zip(means, zip(*each, strict=True), strict=True)
        )
        return place, distance

    def _targets(self, image: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Each target's prescription (batch, target, 1, 1, 1), 0 where absent, and its signed distance in mm."""
        prescribed = condition[:, self.spec.prescribed] * condition[:, self.presence]
        return prescribed[:, :, None, None, None], image[:, self.channels] * self.spec.recipe.sdf_scale_mm

    def _coordinates(self, image: Tensor, prescribed: Tensor, distance_mm: Tensor) -> tuple[Tensor, Tensor]:
        """Where voxels lie on each lattice, (batch, z, y, x, 3) in mm."""
        first = self.spec.first_offset
        place = image[:, first : first + 3].movedim(1, -1) * OFFSET_SCALE_MM
        chosen = prescribed.argmax(dim=1, keepdim=True).expand(-1, 1, *distance_mm.shape[2:])
        to_main = distance_mm.gather(1, chosen)[:, 0]
        # An absent target is as far away as can be said.
        to_nearest = distance_mm.amin(dim=1)
        return place, torch.stack([place[..., 0], to_main, to_nearest], dim=-1)

    def _voxels_of(self, cases: Iterable[OpenCase]) -> Iterator[CaseVoxels]:
        for case in cases:
            if case.place is None:
                continue
            sample = read_sample(case, self.spec, case.whole)
            known = torch.from_numpy((sample["valid_dose"] & sample["body"])[0])
            if not known.any():
                continue
            dose_gy = sample["dose"][0][known.numpy()] * self.spec.recipe.dose_scale_gy
            if not np.isfinite(dose_gy).all():
                raise BadCase(case.case_id, "its dose is not finite; no mean can be taken with it: ingest it again")
            image, condition = (torch.from_numpy(sample[name])[None] for name in ("image", "condition"))
            coordinates = self._coordinates(image, *self._targets(image, condition))
            yield CaseVoxels(
                case.case_id,
                dose_gy / case.main_prescription_gy,
                tuple(lattice.nearest(at_mm[0][known]) for lattice, at_mm in zip(LATTICES, coordinates, strict=True)),
            )


def _place_share(
    cases: Iterable[CaseVoxels], means: list[Mean], keep: Callable[[str, list[Floats]], None] | None = None
) -> float:
    """Share of the mean by place that tells each case's dose best from the others' means; cases count alike.

    `keep` takes the others' means at all points of the lattices, a case.
    """
    gain, spread = 0.0, 0.0
    for voxels in cases:
        others = []
        for mean, points in zip(means, voxels.points, strict=True):
            mean.add(points, voxels.dose, sign=-1)
            others.append(mean.values())
            mean.add(points, voxels.dose)
        if keep is not None:
            keep(voxels.case_id, others)
        told = [values[points] for values, points in zip(others, voxels.points, strict=True)]
        difference = told[0] - told[1]
        gain += float(np.mean((voxels.dose - told[1]) * difference))
        spread += float(np.mean(difference**2))
    return min(max(gain / spread, 0.0), 1.0) if spread else 0.0

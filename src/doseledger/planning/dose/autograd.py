"""The dose of an arc as a PyTorch function, differentiable by its exact adjoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from doseledger.planning.dose.operator import ArcOperator


class _ArcDose(torch.autograd.Function):
    """Leaf tips and monitor units to dose; no second derivative."""

    @staticmethod
    def forward(ctx: Any, leaf_mm: Tensor, mu: Tensor, operator: ArcOperator) -> Tensor:
        ctx.save_for_backward(leaf_mm, mu)
        ctx.operator = operator
        return torch.from_numpy(operator.dose(_numbers(leaf_mm), _numbers(mu))).to(mu)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, None]:
        leaf_mm, mu = ctx.saved_tensors
        slope = _numbers(slopes[0]).astype(np.float32)
        by_leaf, by_mu = ctx.operator.adjoint(_numbers(leaf_mm), _numbers(mu), slope)
        return torch.from_numpy(by_leaf).to(leaf_mm), torch.from_numpy(by_mu).to(mu), None


def _numbers(tensor: Tensor) -> Any:
    return tensor.detach().cpu().double().numpy()


def arc_dose(operator: ArcOperator, leaf_mm: Tensor, mu: Tensor) -> Tensor:
    """Return the dose of one fraction in Gy, (point,), with gradients by leaf tips and monitor units.

    A network that says leaves and monitor units can be trained through the dose engine with it.

    Parameters
    ----------
    operator
        Of one arc and one set of points, from `planning.dose.operator.arc_operators`.
    leaf_mm
        Tips of the pairs within the jaws at the control points, (segment + 1, bank, pair), in mm.
    mu
        Monitor units of the segments, (segment,).

    Notes
    -----
    The engine computes in single precision on the CPU; tensors of another device are brought there and back.
    """
    return _ArcDose.apply(leaf_mm, mu, operator)  # type: ignore[no-any-return, no-untyped-call, unused-ignore]

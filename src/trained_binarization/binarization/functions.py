"""Step and sign as differentiable functions: exact forward, estimated backward."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trained_binarization.binarization.estimators import ESTIMATORS


def _keep_nan(x: Tensor, bits: Tensor) -> Tensor:
    """The bits, but NaN where x is NaN: no bit stands for it, and a training that diverges has to show it."""
    return torch.where(x.isnan(), x, bits)


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, derivative: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.derivative = derivative
        return _keep_nan(x, (x > 0).to(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradient * ctx.derivative(x).to(gradient.dtype), None


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, derivative: Callable[[Tensor], Tensor], zero_is_positive: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.derivative = derivative
        positive = x >= 0 if zero_is_positive else x > 0
        return _keep_nan(x, positive.to(x.dtype) * 2 - 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return gradient * ctx.derivative(x).to(gradient.dtype), None, None


def step(x: Tensor, estimator: str = "long_tailed") -> Tensor:
    """Forward 1[x > 0] in {0, 1}; backward dL/dx = g * D(x), D the estimator over the step.

    Shape and dtype of x. Source: second-hand (Dynamic Sparse Training's code, for activations).
    """
    return _Step.apply(x, ESTIMATORS[estimator].step)


def sign(x: Tensor, estimator: str = "long_tailed") -> Tensor:
    """Forward sign(x) in {-1, +1} with sign(0) = +1, never a third value; backward dL/dx = g * D(x).

    D is the estimator over the sign. Shape and dtype of x. Source: stated (one-bit weights); sign(0): our reading.
    """
    return _Sign.apply(x, ESTIMATORS[estimator].sign, True)


def signed_step(x: Tensor, estimator: str = "long_tailed") -> Tensor:
    """Forward 2 * 1[x > 0] - 1 in {-1, +1}: the step's activation bit in the other alphabet, so 0 gives -1.

    Backward as `sign`. Shape and dtype of x. Source: our reading (the variant of {-1, +1} activations).
    """
    return _Sign.apply(x, ESTIMATORS[estimator].sign, False)

"""The algebra of the export: scaling factors, BatchNorm and binarization become one threshold a channel.

With bits x in {0, 1}, u = 2x - 1 in {-1, +1} and weights w in {-1, +1}, padded with x = 0, that is u = -1:

    conv(x, w) = (S + sum w) / 2        S = conv(u, w), a whole number, by XNOR and popcount

So what enters BatchNorm is v = a * S + b with a = s / 2, b = s / 2 * sum w, s = alpha_A * alpha_W > 0; for activations
in {-1, +1}, a = s and b = 0. And the next layer's bit, 1[gamma * (v - mean) / sqrt(var + eps) + beta > 0], is a
comparison of S with a threshold. docs/deployment.md derives it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trained_binarization.binarization.layers import BinaryConv2d


@dataclass(frozen=True)
class Affine:
    """v = scale * S + shift, channel by channel; both float64 (C,)."""

    scale: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Threshold:
    """bit = 1[value > threshold], or 1[value <= threshold] where `inverted`; float64 (C,) and bool (C,)."""

    threshold: Tensor
    inverted: Tensor


def signs(layer: BinaryConv2d) -> Tensor:
    """The layer's weights in {-1, +1}, int8 (K, C, h, w)."""
    return torch.where(layer.scaled_weight().detach() >= 0, 1, -1).to(torch.int8)


def of_sums(layer: BinaryConv2d) -> Affine:
    """What the layer puts out as a function of its sums S."""
    weight = layer.scaled_weight().detach().double().flatten(1)
    scale = weight.abs()[:, 0]  # one factor a channel at least: every weight of it has this magnitude
    if layer.activation.lowest == 0:
        return Affine(scale / 2, weight.sum(1) / 2)
    return Affine(scale, torch.zeros_like(scale))


def batch_norm(norm: nn.BatchNorm2d) -> Affine:
    """BatchNorm in evaluation, as it is."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return Affine(scale, norm.bias.detach().double() - scale * norm.running_mean.double())


def behind(outer: Affine, inner: Affine) -> Affine:
    """outer(inner(S))."""
    return Affine(outer.scale * inner.scale, outer.scale * inner.shift + outer.shift)


def positive(value: Affine, whole: bool) -> Threshold:
    """Where scale * S + shift > 0, as a comparison of S; `whole`: S takes whole numbers only.

    Then the threshold is put half way between two of them, where no rounding of a comparison can reach it. A channel
    whose scale is 0 has one bit for all S: 1[shift > 0].
    """
    root = -value.shift / value.scale
    if whole:
        # scale > 0: S > root is S >= floor(root) + 1. scale < 0: S < root is S <= ceil(root) - 1.
        root = torch.where(value.scale > 0, torch.floor(root) + 0.5, torch.ceil(root) - 0.5)
    constant = torch.where(value.shift > 0, -torch.inf, torch.inf).double()
    return Threshold(torch.where(value.scale == 0, constant, root), value.scale < 0)

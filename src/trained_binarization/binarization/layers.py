"""Binary layers: a binary activation followed by a convolution or product with binary weights.

With g_A and g_W the loss's gradients with respect to A_b and W_b, sums over what shares the factor:

    A_b = alpha_A * 1[A > 0]            W_b = alpha_W * sign(W)
    dL/dA = g_A * alpha_A * H(A)        dL/dalpha_A = sum g_A * 1[A > 0]
    dL/dW = g_W * alpha_W * D(W)        dL/dalpha_W = sum g_W * sign(W)

Stated by the paper's abstract: one bit for both, trainable factors for both, L2 on alpha_W. The formulas are our
reading; every other choice is a switch of `Method`.
"""

from collections.abc import Iterator, Sequence
from math import pi, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trained_binarization.binarization.functions import sign, signed_step, step
from trained_binarization.binarization.method import Method

ALPHA_FLOOR = 1e-4
"""The least value of a scaling factor: alphas stay positive."""

HALF_WAVE_ALPHA = sqrt(2 / pi)
"""0.798: the alpha_A that is optimal for the half-wave binarization of N(0, 1), which is what BatchNorm hands on."""


def _set_alpha(module: nn.Module, scaling: str, start: Tensor) -> None:
    """Give a module its `alpha`: a parameter ('trained'), a constant that its state holds ('frozen'), or None."""
    if scaling == "trained":
        module.alpha = nn.Parameter(start)
    else:
        module.register_buffer("alpha", start if scaling == "frozen" else None)


class BinaryActivation(nn.Module):
    """A -> alpha_A * 1[A > 0] (or alpha_A * (2 * 1[A > 0] - 1)); any shape, which is kept.

    Window in units of A: dL/dA = g * alpha_A * D(A), dL/dalpha_A = sum g * bit(A).
    Window in units of A / alpha_A: dL/dA = g * D(A / alpha_A),
    dL/dalpha_A = sum g * (bit(A) - (A / alpha_A) * D(A / alpha_A)).
    Source: the forward is stated in kind, the estimator second-hand, the alpha window our reading.
    """

    alpha: Tensor | None

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.bit, self.lowest = (step, 0.0) if method.activation_values == "zero_one" else (signed_step, -1.0)
        self.estimator = method.activation_estimator
        self.in_units_of_alpha = method.activation_window == "alpha"
        start = HALF_WAVE_ALPHA if method.initial_alpha == "data" else 1.0
        _set_alpha(self, method.activation_scaling, torch.tensor(start))

    def bits(self, x: Tensor, padding: int = 0) -> Tensor:
        """The unscaled activation; with padding, its last two dimensions are padded with the lower of the values."""
        if self.alpha is not None and self.in_units_of_alpha:
            x = x / self.alpha.to(x.dtype)
        bits = self.bit(x, self.estimator)
        return F.pad(bits, [padding] * 4, value=self.lowest) if padding else bits

    def forward(self, x: Tensor) -> Tensor:
        """Binarize x."""
        return self.bits(x) if self.alpha is None else self.alpha.to(x.dtype) * self.bits(x)


class _BinaryWeight(nn.Module):
    """What BinaryConv2d and BinaryLinear share: latent weight, its scaling factor, the binary activation before it."""

    weight: nn.Parameter
    alpha: Tensor | None

    def _set_up(self, method: Method) -> None:
        self.method = method
        self.activation = BinaryActivation(method)
        channels = self.weight.shape[0] if method.weight_scaling_granularity == "channel" else 1
        shape = (channels, *[1] * (self.weight.dim() - 1))
        _set_alpha(self, method.weight_scaling, torch.ones(shape))
        self.initialize_from_weight()

    def _mean_magnitude(self) -> Tensor:
        magnitude = self.weight.detach().abs()
        if self.method.weight_scaling_granularity == "layer":
            mean = magnitude.mean().reshape([1] * magnitude.dim())
        else:
            mean = magnitude.mean(dim=tuple(range(1, magnitude.dim())), keepdim=True)
        return mean.clamp_min(ALPHA_FLOOR)

    @torch.no_grad()
    def initialize_from_weight(self) -> None:
        """Once, at the start of fine-tuning: alpha_W from the latent weights, then the latent weights rescaled.

        alpha_W = mean abs(W) (method.initial_alpha 'data') or 1; then W to standard deviation method.latent_std,
        clamped to [-1, 1]. Source: our reading; as pretrained, abs(W) is about 0.02 and every window is flat there.
        Weights without a deviation, a single one or all equal, are not rescaled.
        """
        if self.alpha is not None and self.method.initial_alpha == "data":
            self.alpha.copy_(self._mean_magnitude().expand_as(self.alpha))
        if self.method.latent_std is not None:
            deviation = self.weight.std() if self.weight.numel() > 1 else torch.zeros(())
            if (scale := self.method.latent_std / deviation).isfinite():
                self.weight.mul_(scale).clamp_(-1, 1)

    def binary_weight(self) -> Tensor:
        """W_b = alpha_W * sign(W), the shape of W.

        alpha_W is trained (stated), or frozen at its start, or the analytic mean abs(W), held constant in the backward
        pass (XNOR-Net, 2016), or 1. dL/dW = g_W * alpha_W * D(W), dL/dalpha_W = sum g_W * sign(W).
        """
        binary = sign(self.weight, self.method.weight_estimator)
        if self.method.weight_scaling == "analytic":
            return self._mean_magnitude() * binary
        return binary if self.alpha is None else self.alpha * binary

    def scaled_weight(self) -> Tensor:
        """alpha_A * W_b, to be applied to the unscaled bits of the activation.

        A_b * W_b = bits * (alpha_A * W_b), with the same gradients for all four; but alpha_A then costs a pass over
        the weights instead of two over the activations.
        """
        weight, alpha = self.binary_weight(), self.activation.alpha
        return weight if alpha is None else alpha * weight


class BinaryConv2d(_BinaryWeight):
    """Binary activation, then a convolution with binary weights, no bias: (N, C, H, W) -> (N, K, H', W').

    Padding is with a legal value of the activation: 0 for {0, alpha_A}, -alpha_A for {-alpha_A, +alpha_A}.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        method: Method | None = None,
    ) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self._set_up(method or Method())

    def forward(self, x: Tensor) -> Tensor:
        """Convolve the binarized x with the binary weights."""
        # Zero padding is free inside the convolution; any other value has to be padded before it.
        before = 0 if self.activation.lowest == 0 else self.padding
        bits = self.activation.bits(x, before)
        return F.conv2d(bits, self.scaled_weight(), stride=self.stride, padding=self.padding - before)


class BinaryLinear(_BinaryWeight):
    """Binary activation, then a product with binary weights, no bias: (N, C) -> (N, K)."""

    def __init__(self, in_features: int, out_features: int, method: Method | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self._set_up(method or Method())

    def forward(self, x: Tensor) -> Tensor:
        """Multiply the binarized x with the binary weights."""
        return F.linear(self.activation.bits(x), self.scaled_weight())


def binary_layers(network: nn.Module) -> Iterator[tuple[str, _BinaryWeight]]:
    """The binary layers of a network, by name."""
    for name, module in network.named_modules():
        if isinstance(module, _BinaryWeight):
            yield name, module


def alphas(network: nn.Module) -> list[nn.Parameter]:
    """Every trained scaling factor of a network."""
    layers = [layer for _, layer in binary_layers(network)]
    found = [factor for layer in layers for factor in (layer.alpha, layer.activation.alpha)]
    return [factor for factor in found if isinstance(factor, nn.Parameter)]


def latent_weights(network: nn.Module) -> list[nn.Parameter]:
    """The real-valued weights behind the binary ones."""
    return [layer.weight for _, layer in binary_layers(network)]


def scaling_penalty(network: nn.Module) -> Tensor | float:
    """(lambda / 2) * sum of alpha_W squared, over all binary layers: stated in kind, lambda ours."""
    return sum(
        layer.method.weight_scaling_l2 / 2 * layer.alpha.square().sum()
        for _, layer in binary_layers(network)
        if isinstance(layer.alpha, nn.Parameter) and layer.method.weight_scaling_l2 > 0
    )


@torch.no_grad()
def keep_positive(factors: Sequence[Tensor]) -> None:
    """Project the scaling factors to alpha >= 1e-4, after each step. Source: our reading."""
    if factors:
        torch._foreach_clamp_min_(list(factors), ALPHA_FLOOR)

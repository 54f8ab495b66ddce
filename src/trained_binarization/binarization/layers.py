"""Binary layers: a binary activation followed by a convolution or product with binary weights.

With g_A and g_W the loss's gradients with respect to A_b and W_b, sums over what shares the factor:

    A_b = alpha_A * 1[A > 0]            W_b = alpha_W * sign(W)
    dL/dA = g_A * alpha_A * H(A)        dL/dalpha_A = sum g_A * 1[A > 0]
    dL/dW = g_W * alpha_W * D(W)        dL/dalpha_W = sum g_W * sign(W)

Stated by the paper's abstract: one bit for both, trainable factors for both, L2 on alpha_W. The formulas are our
reading; every other choice is a switch of `Method`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields
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


def _changes(method: Method, part: str = "") -> str:
    """The switches that differ from their defaults, of those whose names begin so: `weight_scaling=none`."""
    return ", ".join(
        f"{switch.name}={getattr(method, switch.name)}"
        for switch in fields(method)
        if switch.name.startswith(part) and getattr(method, switch.name) != switch.default
    )


class BinaryActivation(nn.Module):
    """A -> alpha_A * 1[A > 0] (or alpha_A * (2 * 1[A > 0] - 1)); any shape, which is kept.

    Window in units of A: dL/dA = g * alpha_A * D(A), dL/dalpha_A = sum g * bit(A).
    Window in units of A / alpha_A: dL/dA = g * D(A / alpha_A),
    dL/dalpha_A = sum g * (bit(A) - (A / alpha_A) * D(A / alpha_A)).
    Source: the forward is stated in kind, the estimator second-hand, the alpha window our reading.

    >>> BinaryActivation(Method(activation_scaling="none"))(torch.tensor([-0.5, 0.0, 2.0]))
    tensor([0., 0., 1.])
    """

    alpha: Tensor | None

    def __init__(
        self,
        method: Method | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.method = method = method or Method()
        self.bit, self.lowest = (step, 0.0) if method.activation_values == "zero_one" else (signed_step, -1.0)
        self.estimator = method.activation_estimator
        self.in_units_of_alpha = method.activation_window == "alpha"
        start = HALF_WAVE_ALPHA if method.initial_alpha == "data" else 1.0
        _set_alpha(self, method.activation_scaling, torch.tensor(start, device=device, dtype=dtype))

    def extra_repr(self) -> str:
        """The switches of activations that differ from their defaults."""
        return _changes(self.method, "activation")

    def bits(self, x: Tensor, padding: Sequence[int] = ()) -> Tensor:
        """The unscaled activation; with padding, as F.pad takes it, padded with the lower of the values."""
        if self.alpha is not None and self.in_units_of_alpha:
            x = x / self.alpha.to(x.dtype)
        bits = self.bit(x, self.estimator)
        return F.pad(bits, list(padding), value=self.lowest) if any(padding) else bits

    def forward(self, x: Tensor) -> Tensor:
        """Binarize x."""
        return self.bits(x) if self.alpha is None else self.alpha.to(x.dtype) * self.bits(x)


class _BinaryWeight(nn.Module):
    """What BinaryConv2d and BinaryLinear share: latent weight, its scaling factor, the binary activation before it."""

    weight: Tensor
    alpha: Tensor | None
    fan = "fan_in"

    def reset_parameters(self) -> None:
        """Draw new latent weights (He et al. 2015). `initialize_from_weight` then sets alpha_W and rescales them."""
        nn.init.kaiming_normal_(self.weight, mode=self.fan, nonlinearity="relu")  # type: ignore[arg-type]

    def _set_up(self, method: Method | None) -> None:
        self.method = method = method or Method()
        device, dtype = self.weight.device, self.weight.dtype
        self.activation = BinaryActivation(method, device, dtype)
        channels = self.weight.shape[0] if method.weight_scaling_granularity == "channel" else 1
        shape = (channels, *[1] * (self.weight.dim() - 1))
        _set_alpha(self, method.weight_scaling, torch.ones(shape, device=device, dtype=dtype))
        if not self.weight.is_meta:
            self.initialize_from_weight()

    def extra_repr(self) -> str:
        """The layer's shape, and the switches of the method that differ from their defaults."""
        changes = _changes(self.method)
        return super().extra_repr().replace(", bias=False", "") + (f", {changes}" if changes else "")

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


class BinaryConv2d(_BinaryWeight, nn.Conv2d):
    """Binary activation, then a convolution with binary weights: (N, C, H, W) -> (N, K, H', W').

    Arguments are those of nn.Conv2d, and `method`, whose default is the paper's. There is no bias: BatchNorm follows.
    Padding is with a legal value of the activation: 0 for {0, alpha_A}, -alpha_A for {-alpha_A, +alpha_A}.

    >>> BinaryConv2d(16, 32, 3, padding=1)(torch.randn(8, 16, 10, 10)).shape
    torch.Size([8, 32, 10, 10])
    >>> BinaryConv2d(16, 32, (1, 3), groups=2, method=Method(weight_scaling="none"))
    BinaryConv2d(
      16, 32, kernel_size=(1, 3), stride=(1, 1), groups=2, weight_scaling=none
      (activation): BinaryActivation()
    )
    """

    fan = "fan_out"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        *,
        method: Method | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, False, device=device, dtype=dtype
        )
        self._set_up(method)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve the binarized input with the binary weights."""
        # Zero padding is free inside the convolution; any other value has to be padded before it.
        inside = self.activation.lowest == 0
        bits = self.activation.bits(input, () if inside else self._reversed_padding_repeated_twice)
        padding = self.padding if inside else 0
        return F.conv2d(bits, self.scaled_weight(), None, self.stride, padding, self.dilation, self.groups)


class BinaryLinear(_BinaryWeight, nn.Linear):
    """Binary activation, then a product with binary weights: (*, C) -> (*, K), where * is any shape.

    Arguments are those of nn.Linear, and `method`, whose default is the paper's. There is no bias: BatchNorm follows.

    >>> BinaryLinear(64, 10)(torch.randn(8, 64)).shape
    torch.Size([8, 10])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        method: Method | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, False, device=device, dtype=dtype)
        self._set_up(method)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply the binarized input with the binary weights."""
        return F.linear(self.activation.bits(input), self.scaled_weight())


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
    return [layer.weight for _, layer in binary_layers(network)]  # type: ignore[misc]  # PyTorch calls it a Tensor


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

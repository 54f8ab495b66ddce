"""Binary layers: legal values only, and the gradients of docs/method.md written out by hand."""

from collections.abc import Callable
from itertools import product
from math import pi, sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from trained_binarization.binarization.estimators import ESTIMATORS
from trained_binarization.binarization.layers import (
    ALPHA_FLOOR,
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    alphas,
    binary_layers,
    keep_positive,
    latent_weights,
    scaling_penalty,
)
from trained_binarization.binarization.method import Method

VALUES = ["zero_one", "plus_minus_one"]
WINDOWS = ["absolute", "alpha"]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bits(x: Tensor, values: str) -> Tensor:
    """1[x > 0], in the alphabet."""
    return torch.where(x > 0, 1.0, 0.0 if values == "zero_one" else -1.0).to(x.dtype)


def derivative(method: Method) -> Callable[[Tensor], Tensor]:
    """The estimator over the activation's function: D for {0, 1}, that of the sign for {-1, +1}."""
    estimator = ESTIMATORS[method.activation_estimator]
    return estimator.step if method.activation_values == "zero_one" else estimator.sign


# ---------------------------------------------------------------------------------------------------------- activation


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("values", VALUES)
def test_activation_has_two_values(values: str, window: str) -> None:
    layer = BinaryActivation(Method(activation_values=values, activation_window=window)).double()
    assert layer.alpha is not None
    x = randn(2, 3, 4, 5)
    x[0, 0, 0, :2] = torch.tensor([0.0, -0.0])
    low = 0.0 if values == "zero_one" else -layer.alpha.item()
    assert torch.equal(layer(x), torch.where(x > 0, layer.alpha.item(), low).double())
    assert set(layer(x).unique().tolist()) == {low, layer.alpha.item()}


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("values", VALUES)
def test_padding_is_the_lower_of_the_two_values(values: str, padding: int) -> None:
    layer = BinaryActivation(Method(activation_values=values)).double()
    x = randn(2, 3, 4, 5)
    low = 0.0 if values == "zero_one" else -1.0
    assert torch.equal(layer.bits(x, [padding] * 4), F.pad(bits(x, values), [padding] * 4, value=low))
    assert set(layer.bits(x, [padding] * 4).unique().tolist()) == {low, 1.0}


def test_activation_without_scaling_is_the_bit_itself() -> None:
    x = randn(5, 6)
    for values in VALUES:
        layer = BinaryActivation(Method(activation_values=values, activation_scaling="none"))  # type: ignore[arg-type]
        assert list(layer.parameters()) == []
        assert torch.equal(layer(x), bits(x, values))


def test_activation_starts_where_it_is_said_to() -> None:
    assert BinaryActivation(Method()).alpha.item() == pytest.approx(sqrt(2 / pi))  # type: ignore[union-attr]
    assert BinaryActivation(Method(initial_alpha="one")).alpha.item() == 1  # type: ignore[union-attr]


def test_half_wave_alpha_is_the_best_for_a_standard_normal() -> None:
    # argmin over alpha of E (relu(x) - alpha 1[x > 0])^2 = E[x | x > 0].
    x = randn(200_000)
    errors = {alpha: (x.clamp_min(0) - alpha * (x > 0)).square().mean().item() for alpha in (0.75, 0.798, 0.85)}
    assert min(errors, key=errors.__getitem__) == 0.798


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("values", VALUES)
def test_activation_gradients_by_hand(values: str, window: str, estimator: str) -> None:
    method = Method(activation_values=values, activation_window=window, activation_estimator=estimator)  # type: ignore[arg-type]
    layer, d = BinaryActivation(method).double(), derivative(method)
    alpha = 0.6
    with torch.no_grad():
        layer.alpha.fill_(alpha)  # type: ignore[union-attr]
    edges = torch.tensor([0.0, -0.0, 0.4, -0.4, 1.0, -1.0, 0.24, 0.6, -0.6, 3.0], dtype=torch.float64)
    x = torch.cat([edges, 0.7 * randn(300)]).requires_grad_()
    g = randn(310, seed=1)
    layer(x).backward(g)
    a = x.detach()
    if window == "absolute":
        expected = g * alpha * d(a)
        expected_alpha = (g * bits(a, values)).sum()
    else:
        expected = g * d(a / alpha)
        expected_alpha = (g * (bits(a, values) - a / alpha * d(a / alpha))).sum()
    torch.testing.assert_close(x.grad, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.alpha.grad, expected_alpha, rtol=1e-10, atol=1e-12)  # type: ignore[union-attr]


@pytest.mark.parametrize("values", VALUES)
def test_absolute_window_alpha_gradient_is_the_finite_difference(values: str) -> None:
    layer = BinaryActivation(Method(activation_values=values)).double()  # type: ignore[arg-type]
    x, g, step = randn(200), randn(200, seed=1), 1e-6
    (layer(x) * g).sum().backward()
    start = layer.alpha.item()  # type: ignore[union-attr]
    ends = []
    for shift in (step, -step):
        with torch.no_grad():
            layer.alpha.fill_(start + shift)  # type: ignore[union-attr]
        ends.append((layer(x) * g).sum().item())
    assert layer.alpha.grad.item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-7)  # type: ignore[union-attr]


@pytest.mark.parametrize("values", VALUES)
def test_alpha_window_gradient_is_that_of_the_smooth_function_behind_it(values: str) -> None:
    # Let S be the integral of H. Then alpha * S(A / alpha) is smooth, and its derivative in alpha, a finite difference
    # here, is S(u) - u H(u) with u = A / alpha. The layer has the bit where the smooth function has S(u).
    def integral(u: Tensor) -> Tensor:
        size = u.abs().clamp_max(1)
        inner = size.clamp_max(0.4)
        return u.sign() * (2 * inner - 2 * inner**2 + 0.4 * (size - inner)) * (1 if values == "zero_one" else 2)

    layer = BinaryActivation(Method(activation_values=values, activation_window="alpha")).double()  # type: ignore[arg-type]
    x, g, step = 0.7 * randn(300), randn(300, seed=1), 1e-6
    layer(x).backward(g)
    alpha = layer.alpha.item()  # type: ignore[union-attr]
    smooth = [(g * (alpha + shift) * integral(x / (alpha + shift))).sum().item() for shift in (step, -step)]
    difference = (smooth[0] - smooth[1]) / (2 * step)
    correction = (g * (bits(x, values) - integral(x / alpha))).sum().item()
    assert layer.alpha.grad.item() == pytest.approx(difference + correction, rel=1e-6)  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------- convolution and product

SCALINGS = [
    {"weight_scaling": "trained", "weight_scaling_granularity": "layer"},
    {"weight_scaling": "trained", "weight_scaling_granularity": "channel"},
    {"weight_scaling": "analytic", "weight_scaling_granularity": "layer"},
    {"weight_scaling": "analytic", "weight_scaling_granularity": "channel"},
    {"weight_scaling": "none"},
    {"weight_scaling": "none", "activation_scaling": "none"},
    {"weight_scaling": "trained", "activation_scaling": "none"},
]


def weight_factor(layer: BinaryConv2d | BinaryLinear, method: Method) -> Tensor:
    """alpha_W as it is defined, shaped to multiply W."""
    w = layer.weight.detach()
    if method.weight_scaling == "none":
        return torch.ones([1] * w.dim(), dtype=w.dtype)
    if method.weight_scaling == "trained":
        assert layer.alpha is not None
        return layer.alpha.detach()
    rows = w.abs().flatten(1).mean(1)
    per_channel = method.weight_scaling_granularity == "channel"
    return rows.reshape(-1, *[1] * (w.dim() - 1)) if per_channel else w.abs().mean().reshape([1] * w.dim())


def shake(layer: BinaryConv2d | BinaryLinear) -> None:
    """Distinct factors per channel, and latent weights on the windows' edges, at zero and at minus zero."""
    with torch.no_grad():
        layer.weight.mul_(1.4)
        layer.weight.view(-1)[:7] = torch.tensor([0.0, -0.0, 0.4, -0.4, 1.0, -1.0, 1.2], dtype=torch.float64)
        if layer.alpha is not None:
            layer.alpha.mul_(torch.linspace(0.5, 1.5, layer.alpha.numel()).double().view_as(layer.alpha))


def check_by_hand(layer: BinaryConv2d | BinaryLinear, method: Method, x: Tensor) -> None:
    """Forward and all gradients against formulas on explicitly built A_b and W_b; g_A, g_W by a plain float layer."""
    values = method.activation_values
    alpha_a = 1.0 if layer.activation.alpha is None else layer.activation.alpha.item()
    alpha_w = weight_factor(layer, method)
    w, a = layer.weight.detach(), x.detach()
    pad = layer.padding[0] if isinstance(layer, BinaryConv2d) else 0
    lowest = 0.0 if values == "zero_one" else -1.0
    padded_bits = F.pad(bits(a, values), [pad] * 4, value=lowest) if pad else bits(a, values)
    a_b = (alpha_a * padded_bits).requires_grad_()
    sign_w = torch.where(w >= 0, 1.0, -1.0).double()
    w_b = (alpha_w * sign_w).requires_grad_()
    expected = F.conv2d(a_b, w_b, stride=layer.stride) if isinstance(layer, BinaryConv2d) else F.linear(a_b, w_b)

    result = layer(x)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
    g = randn(*result.shape, seed=5)
    result.backward(g)
    expected.backward(g)
    assert a_b.grad is not None
    assert w_b.grad is not None

    inner = a_b.grad[..., pad : a_b.shape[-2] - pad, pad : a_b.shape[-1] - pad] if pad else a_b.grad
    d = derivative(method)
    u = a / alpha_a
    in_alpha = method.activation_window == "alpha"
    by_hand_a = inner * d(u) if in_alpha else inner * alpha_a * d(a)
    torch.testing.assert_close(x.grad, by_hand_a, rtol=1e-10, atol=1e-12)
    d_w = ESTIMATORS[method.weight_estimator].sign
    torch.testing.assert_close(layer.weight.grad, w_b.grad * alpha_w * d_w(w), rtol=1e-10, atol=1e-12)
    if layer.activation.alpha is not None:
        by_hand = (a_b.grad * padded_bits).sum()
        if in_alpha:
            by_hand = by_hand - (inner * u * d(u)).sum()
        torch.testing.assert_close(layer.activation.alpha.grad, by_hand, rtol=1e-10, atol=1e-12)
    if layer.alpha is not None:
        products = w_b.grad * sign_w
        per_channel = products.flatten(1).sum(1)
        by_hand_w = per_channel if layer.alpha.numel() > 1 else products.sum()
        torch.testing.assert_close(layer.alpha.grad.flatten(), by_hand_w.flatten(), rtol=1e-10, atol=1e-12)  # type: ignore[union-attr]


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda s: "-".join(s.values()))
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("values", VALUES)
def test_convolution_and_product_by_hand(values: str, window: str, scaling: dict[str, Any]) -> None:
    if window == "alpha" and scaling.get("activation_scaling") == "none":
        with pytest.raises(ValueError, match="activation_window"):
            Method(activation_window="alpha", activation_scaling="none")
        return
    method = Method(activation_values=values, activation_window=window, **scaling)
    torch.manual_seed(3)
    convolution = BinaryConv2d(5, 4, 3, stride=1, padding=1, method=method).double()
    shake(convolution)
    check_by_hand(convolution, method, randn(2, 5, 6, 7, seed=4).requires_grad_())
    linear = BinaryLinear(11, 4, method=method).double()
    shake(linear)
    check_by_hand(linear, method, randn(6, 11, seed=4).requires_grad_())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_weight_estimators_by_hand(estimator: str) -> None:
    method = Method(weight_estimator=estimator, activation_estimator=estimator)
    torch.manual_seed(3)
    layer = BinaryConv2d(5, 4, 3, padding=1, method=method).double()
    shake(layer)
    check_by_hand(layer, method, randn(2, 5, 6, 7, seed=4).requires_grad_())


@pytest.mark.parametrize(("kernel", "stride", "padding"), list(product([1, 3, 5], [1, 2], [0, 1, 2])))
@pytest.mark.parametrize("values", VALUES)
def test_convolution_is_a_float_convolution_of_the_binary_tensors(
    values: str, kernel: int, stride: int, padding: int
) -> None:
    method = Method(activation_values=values)
    torch.manual_seed(kernel)
    layer = BinaryConv2d(3, 4, kernel, stride=stride, padding=padding, method=method).double()
    shake(layer)
    x = randn(2, 3, 8, 9).requires_grad_()
    assert layer(x).shape == F.conv2d(x, layer.weight, stride=stride, padding=padding).shape
    check_by_hand(layer, method, x)


@pytest.mark.parametrize("granularity", ["layer", "channel"])
@pytest.mark.parametrize("values", VALUES)
def test_alpha_gradients_of_a_convolution_are_finite_differences(values: str, granularity: str) -> None:
    method = Method(activation_values=values, weight_scaling_granularity=granularity)
    torch.manual_seed(3)
    layer = BinaryConv2d(5, 4, 3, padding=1, method=method).double()
    shake(layer)
    x = randn(2, 5, 6, 7)

    def loss() -> Tensor:
        return layer(x).square().mean()  # the factors enter squared: a curved function of each

    loss().backward()
    for factor in (layer.alpha, layer.activation.alpha):
        assert factor is not None
        for index in range(factor.numel()):
            start, ends = factor.detach().view(-1)[index].item(), []
            for shift in (1e-6, -1e-6):
                with torch.no_grad():
                    factor.view(-1)[index] = start + shift
                    ends.append(loss().item())
            with torch.no_grad():
                factor.view(-1)[index] = start
            assert factor.grad is not None
            assert factor.grad.view(-1)[index].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6)


class Operands(TorchDispatchMode):
    """The tensors that convolutions really multiply, after autocast, and the padding inside them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor, list[int]]] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        if function is torch.ops.aten.convolution.default:
            self.seen.append((arguments[0].detach().clone(), arguments[1].detach().clone(), list(arguments[4])))
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("values", VALUES)
def test_operands_hold_two_values_each(values: str, memory: torch.memory_format, autocast: bool) -> None:
    method = Method(activation_values=values)
    torch.manual_seed(0)
    layer = BinaryConv2d(6, 4, 3, padding=1, method=method).to(memory_format=memory)
    with torch.no_grad():
        layer.activation.alpha.fill_(0.37)  # type: ignore[union-attr]
        layer.weight[0, 0, 0, :2] = torch.tensor([0.0, -0.0])
    x = randn(2, 6, 8, 8).float().to(memory_format=memory)
    x[0, 0, 0, :2] = torch.tensor([0.0, -0.0])
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), Operands() as operands:
        layer(x)
    ((a_b, w_b, inside),) = operands.seen
    assert a_b.dtype == w_b.dtype == (torch.bfloat16 if autocast else torch.float32)
    # Which of the two carries alpha_A is a matter of speed; each has two values, and their product is as it should be.
    high_a, high_w = a_b.max().item(), w_b.max().item()
    assert set(a_b.unique().tolist()) == {0.0 if values == "zero_one" else -high_a, high_a}
    assert set(w_b.unique().tolist()) == {-high_w, high_w}
    assert high_a * high_w == pytest.approx(0.37 * layer.alpha.item(), rel=1e-2 if autocast else 1e-6)  # type: ignore[union-attr]
    legal = torch.where(x > 0, high_a, a_b.min().item()).to(a_b.dtype)
    before = 1 - inside[0]
    assert torch.equal(a_b[..., before : before + 8, before : before + 8], legal)
    # Zeros from inside the convolution are legal only where 0 is a value.
    assert inside == ([1, 1] if values == "zero_one" else [0, 0])
    assert a_b.shape[-1] + 2 * inside[0] == 10


@pytest.mark.parametrize("signs", [1.0, -1.0])
def test_largest_sum_of_vgg_small_is_exact_in_float32(signs: float) -> None:
    method = Method(initial_alpha="one", latent_std=None)
    layer = BinaryConv2d(512, 2, 3, padding=1, method=method)
    with torch.no_grad():
        layer.weight.fill_(signs)
        layer.activation.alpha.fill_(1.0)  # type: ignore[union-attr]
    result = layer(torch.ones(1, 512, 4, 4))
    assert result[0, :, 1:3, 1:3].unique().tolist() == [signs * 4608]  # 512 * 9 equal products
    assert result[0, 0, 0, 0].item() == signs * 512 * 4  # a corner sees four of nine


def test_sums_of_random_bits_are_whole_numbers_in_float32() -> None:
    method = Method(activation_scaling="none", weight_scaling="none")
    torch.manual_seed(0)
    layer = BinaryConv2d(512, 8, 3, padding=1, method=method)
    x = torch.randn(2, 512, 6, 6)
    by_integers = F.conv2d((x > 0).double(), torch.where(layer.weight >= 0, 1, -1).double(), padding=1).long()
    assert torch.equal(layer(x).long(), by_integers)
    assert torch.equal(layer(x), layer(x).round())


# ------------------------------------------------------------------------------------------------------ initial values


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_initialize_from_weight(granularity: str) -> None:
    method = Method(weight_scaling_granularity=granularity)
    layer = BinaryConv2d(64, 32, 3, method=method).double()
    pretrained = 0.02 * randn(32, 64, 3, 3, seed=7) + 0.001
    with torch.no_grad():
        layer.weight.copy_(pretrained)
    layer.initialize_from_weight()
    magnitude = pretrained.abs()
    expected = magnitude.mean() if granularity == "layer" else magnitude.mean((1, 2, 3))
    torch.testing.assert_close(layer.alpha.detach().flatten(), expected.flatten(), rtol=1e-12, atol=0)  # type: ignore[union-attr]
    rescaled = pretrained * (0.5 / pretrained.std())
    assert rescaled.std().item() == pytest.approx(0.5)
    assert rescaled.abs().max() > 1  # so the clamp does something here
    torch.testing.assert_close(layer.weight.detach(), rescaled.clamp(-1, 1), rtol=1e-12, atol=1e-15)
    assert layer.weight.abs().max().item() == 1
    assert torch.equal(layer.weight >= 0, pretrained >= 0)  # no sign flips: the same binary network


def test_initial_values_that_a_variant_changes() -> None:
    pretrained = 0.02 * randn(8, 4, 3, 3)
    for method, alpha, weight in (
        (Method(latent_std=None), pretrained.abs().mean().item(), pretrained),
        (Method(initial_alpha="one", latent_std=None), 1.0, pretrained),
        (Method(initial_alpha="one", latent_std=0.1), 1.0, (pretrained * (0.1 / pretrained.std())).clamp(-1, 1)),
    ):
        layer = BinaryConv2d(4, 8, 3, method=method).double()
        with torch.no_grad():
            layer.weight.copy_(pretrained)
            layer.alpha.fill_(1.0)  # type: ignore[union-attr]
        layer.initialize_from_weight()
        assert layer.alpha.item() == pytest.approx(alpha)  # type: ignore[union-attr]
        torch.testing.assert_close(layer.weight.detach(), weight, rtol=1e-12, atol=1e-15)


def test_analytic_scaling_has_no_parameter_and_follows_the_weight() -> None:
    layer = BinaryLinear(16, 4, method=Method(weight_scaling="analytic", weight_scaling_granularity="channel")).double()
    assert layer.alpha is None
    with torch.no_grad():
        layer.weight.copy_(randn(4, 16) * torch.tensor([[0.1], [1.0], [2.0], [3.0]]))
    expected = layer.weight.abs().mean(1, keepdim=True) * torch.where(layer.weight >= 0, 1.0, -1.0)
    torch.testing.assert_close(layer.binary_weight(), expected, rtol=1e-12, atol=0)


# ------------------------------------------------------------------------------------------------ collections, penalty


def two_layers(**changes: Any) -> nn.Sequential:
    method = Method(**changes)
    torch.manual_seed(0)
    return nn.Sequential(
        BinaryConv2d(3, 4, 3, padding=1, method=method), nn.Flatten(), BinaryLinear(64, 5, method=method)
    )


def test_what_counts_as_alpha_and_as_latent_weight() -> None:
    network = two_layers(weight_scaling_granularity="channel")
    (_, first), (_, last) = binary_layers(network)
    assert [name for name, _ in binary_layers(network)] == ["0", "2"]
    assert {id(p) for p in alphas(network)} == {
        id(p) for p in (first.alpha, first.activation.alpha, last.alpha, last.activation.alpha)
    }
    assert [id(p) for p in latent_weights(network)] == [id(first.weight), id(last.weight)]
    assert first.alpha.shape == (4, 1, 1, 1)  # type: ignore[union-attr]
    assert last.alpha.shape == (5, 1)  # type: ignore[union-attr]
    assert alphas(two_layers(weight_scaling="none", activation_scaling="none")) == []
    assert alphas(nn.Sequential(nn.Linear(3, 3))) == []


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_penalty_is_half_lambda_times_the_squares_and_pulls_weight_factors_alone(granularity: str) -> None:
    network = two_layers(weight_scaling_l2=0.03, weight_scaling_granularity=granularity).double()
    for number, factor in enumerate(alphas(network)):
        factor.data.copy_(0.5 + number + torch.rand(factor.shape, generator=torch.Generator().manual_seed(number)))
    layers = [layer for _, layer in binary_layers(network)]
    weight_factors = [layer.alpha for layer in layers if layer.alpha is not None]
    assert len(weight_factors) == 2
    penalty = scaling_penalty(network)
    assert isinstance(penalty, Tensor)
    expected = 0.03 / 2 * sum(float((factor.detach() ** 2).sum()) for factor in weight_factors)
    assert penalty.item() == pytest.approx(expected, rel=1e-12)
    penalty.backward()
    for weight_factor in weight_factors:
        torch.testing.assert_close(weight_factor.grad, 0.03 * weight_factor.detach(), rtol=1e-12, atol=0)
    for other in (*(layer.activation.alpha for layer in layers), *latent_weights(network)):
        assert other.grad is None  # type: ignore[union-attr]


def test_no_penalty_where_lambda_is_zero_or_nothing_is_trained() -> None:
    assert scaling_penalty(two_layers(weight_scaling_l2=0.0)) == 0
    assert scaling_penalty(two_layers(weight_scaling="analytic")) == 0
    assert scaling_penalty(nn.Sequential(nn.Linear(2, 2))) == 0


def test_keep_positive_raises_what_is_below_the_floor_and_leaves_the_rest() -> None:
    network = two_layers(weight_scaling_granularity="channel")
    factors = alphas(network)
    with torch.no_grad():
        factors[0].copy_(torch.tensor([-3.0, 0.0, 5e-5, 0.25]).view(4, 1, 1, 1))
    before = [factor.detach().clone() for factor in factors]
    keep_positive(factors)
    torch.testing.assert_close(factors[0].detach().flatten(), torch.tensor([ALPHA_FLOOR] * 3 + [0.25]))
    for factor, old in zip(factors[1:], before[1:], strict=True):
        assert torch.equal(factor.detach(), old)
    keep_positive([])

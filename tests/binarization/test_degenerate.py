"""Layers and values at the edge: one weight, no weights but zeros, dead channels, infinities, NaN."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trained_binarization.binarization.estimators import ESTIMATORS
from trained_binarization.binarization.functions import sign, signed_step, step
from trained_binarization.binarization.layers import ALPHA_FLOOR, BinaryConv2d, BinaryLinear
from trained_binarization.binarization.method import Method

METHODS = [
    Method(weight_scaling=scaling, weight_scaling_granularity=granularity, initial_alpha=start, latent_std=std)
    for scaling in ("trained", "frozen", "analytic", "none")
    for granularity in ("layer", "channel")
    for start in ("data", "one")
    for std in (0.5, None)
]


def _finite(layer: nn.Module, x: Tensor) -> None:
    y = layer(x)
    y.square().sum().backward()
    for value in (y, *layer.state_dict().values(), *(p.grad for p in layer.parameters() if p.grad is not None)):
        assert value.isfinite().all()


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_layer_of_one_weight_is_finite(method: Method) -> None:
    _finite(BinaryLinear(1, 1, method=method), torch.ones(2, 1))
    _finite(BinaryConv2d(1, 1, 1, method=method), torch.ones(2, 1, 3, 3))


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("value", [0.0, 0.3, 1e-38])
def test_a_layer_of_equal_weights_is_finite_and_its_factors_are_positive(value: float, method: Method) -> None:
    for layer, x in (
        (BinaryLinear(4, 3, method=method), torch.ones(2, 4)),
        (BinaryConv2d(2, 3, 3, method=method), torch.ones(2, 2, 5, 5)),
    ):
        nn.init.constant_(layer.weight, value)
        layer.initialize_from_weight()
        _finite(layer, x)
        assert layer.alpha is None or (layer.alpha >= ALPHA_FLOOR).all()
        assert (layer.binary_weight() != 0).all()  # a zero would be a third value


def test_a_dead_channel_has_its_factor_at_the_floor() -> None:
    layer = BinaryConv2d(2, 3, 3, method=Method(weight_scaling_granularity="channel"))
    nn.init.zeros_(layer.weight[1])
    layer.initialize_from_weight()
    assert layer.alpha is not None
    assert layer.alpha.flatten()[1] == torch.tensor(ALPHA_FLOOR)
    assert (layer.alpha.flatten()[[0, 2]] > 0.01).all()


INFINITE = [float("inf"), float("-inf")]


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("kind", ["step", "sign"])
def test_estimators_at_infinity_and_nan(name: str, kind: str) -> None:
    derivative, limit = getattr(ESTIMATORS[name], kind), 1.0 if name == "identity" else 0.0
    for values in (torch.tensor([*INFINITE, float("nan")]), np.array([*INFINITE, float("nan")])):
        *infinite, nothing = derivative(values).tolist()
        assert infinite == [limit, limit]
        assert np.isnan(nothing)


@pytest.mark.parametrize("function", [step, sign, signed_step])
def test_a_bit_of_nan_is_nan_and_of_infinity_a_bit(function: object) -> None:
    low, high, nothing = function(torch.tensor([float("-inf"), float("inf"), float("nan")])).tolist()  # type: ignore[operator]
    assert (low, high) == (0.0 if function is step else -1.0, 1.0)
    assert np.isnan(nothing)

"""Frozen scaling factors: the data-driven start, and no training of it."""

import pytest
import torch

from trained_binarization.binarization.layers import BinaryConv2d, alphas, scaling_penalty
from trained_binarization.binarization.method import Method

X = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def layer(scaling: str) -> BinaryConv2d:
    torch.manual_seed(0)
    return BinaryConv2d(3, 5, 3, method=Method(activation_scaling=scaling, weight_scaling=scaling))


def test_frozen_factors_start_where_trained_ones_do() -> None:
    assert torch.equal(layer("frozen")(X), layer("trained")(X))


def test_frozen_factors_are_no_parameters_and_have_no_penalty() -> None:
    assert alphas(layer("frozen")) == []
    assert [name for name, _ in layer("frozen").named_parameters()] == ["weight"]
    assert scaling_penalty(layer("frozen")) == 0
    assert scaling_penalty(layer("trained")) > 0


def test_the_weights_get_the_same_gradient() -> None:
    gradients = []
    for scaling in ("frozen", "trained"):
        one = layer(scaling)
        one(X).square().sum().backward()
        gradients.append(one.weight.grad)
    assert torch.equal(*gradients)


def test_frozen_factors_stand_in_the_state() -> None:
    state = layer("frozen").state_dict()
    assert {"alpha", "activation.alpha"} <= set(state)
    other = BinaryConv2d(3, 5, 3, method=Method(activation_scaling="frozen", weight_scaling="frozen"))
    other.load_state_dict(state)
    assert torch.equal(other(X), layer("trained")(X))


@pytest.mark.parametrize("scaling", ["trained", "frozen"])
def test_a_layer_moves_to_another_type_with_its_factors(scaling: str) -> None:
    moved = layer(scaling).double()
    assert moved.alpha is not None
    assert moved.alpha.dtype == moved(X.double()).dtype == torch.float64

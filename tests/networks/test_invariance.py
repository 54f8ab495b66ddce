"""The invariance of docs/method.md: behind a train-mode BatchNorm no scaling factor changes what VGG-Small computes.

For A_b in {0, alpha_A} a factor multiplies a whole layer (or channel) before its BatchNorm, max-pool commutes with a
positive factor, and BatchNorm divides it out, up to its epsilon.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trained_binarization.binarization.layers import alphas, binary_layers
from trained_binarization.binarization.method import Method
from trained_binarization.networks.alexnet import AlexNet
from trained_binarization.networks.resnet18 import ResNet18
from trained_binarization.networks.vgg_small import VGGSmall

NEGLIGIBLE = 1e-30


def set_up(epsilon: float = NEGLIGIBLE, **changes: Any) -> tuple[nn.Module, Tensor, Tensor]:
    """A narrow VGG-Small, ready, and a batch."""
    torch.manual_seed(0)
    network = ready(VGGSmall(Method(**changes), width=0.125, image_size=16, classes=10), epsilon)
    return network, torch.randn(64, 3, 16, 16, dtype=torch.float64), torch.randint(10, (64,))


def pass_through(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, float, dict[str, Tensor]]:
    """(logits, loss without the penalty, every parameter's gradient)."""
    network.zero_grad()
    logits = network(images)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    assert set(gradients) == {name for name, _ in network.named_parameters()}
    return logits.detach(), loss.item(), gradients


def relative_slopes(network: nn.Module, images: Tensor, labels: Tensor) -> list[float]:
    """abs(alpha * dL/dalpha) / L of every factor."""
    _, loss, gradients = pass_through(network, images, labels)
    return [
        float((parameter.detach() * gradients[name]).abs().max()) / loss
        for name, parameter in network.named_parameters()
        if name.endswith("alpha")
    ]


def ready(network: nn.Module, epsilon: float) -> nn.Module:
    """In float64, with factors and BatchNorms that are nothing special."""
    network.double().train()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = epsilon
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.3, 0.3)
        for factor in alphas(network):
            # Multiples of 1/64: products and sums with them are exact, so that equal values stay equal when a factor
            # is scaled. (A binary convolution gives many ties, and max-pool hands its gradient to one of the equals:
            # where rounding breaks the tie, another one gets it.)
            factor.copy_(torch.randint(20, 80, factor.shape) / 64)
    return network


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_no_factor_has_a_data_gradient(granularity: str) -> None:
    slopes = relative_slopes(*set_up(weight_scaling_granularity=granularity))
    assert len(slopes) == 10  # five binary layers, two kinds of factor
    assert max(slopes) < 1e-12
    # The same batch does have gradients elsewhere: the network is not dead.
    _, _, gradients = pass_through(*set_up(weight_scaling_granularity=granularity))
    for name, gradient in gradients.items():
        assert name.endswith("alpha") or gradient.abs().max() > 1e-6, name


def test_alexnet_is_of_the_kind_and_resnet18_is_where_batchnorm_follows() -> None:
    torch.manual_seed(0)
    labels = torch.randint(10, (16,))
    alexnet = ready(AlexNet(Method(), width=0.03, image_size=67, classes=10), NEGLIGIBLE)
    assert max(relative_slopes(alexnet, torch.randn(16, 3, 67, 67, dtype=torch.float64), labels)) < 1e-12
    resnet = ready(ResNet18(Method(), width=0.0625, image_size=32, classes=10), NEGLIGIBLE)
    names = [name for name, _ in resnet.named_parameters() if name.endswith("alpha")]
    slopes = relative_slopes(resnet, torch.randn(16, 3, 32, 32, dtype=torch.float64), labels)
    for name, slope in zip(names, slopes, strict=True):
        assert slope < 1e-12 if "conv1" in name else slope > 1e-4, (name, slope)  # conv2 enters a sum


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_scaling_any_factor_changes_neither_logits_nor_other_gradients(granularity: str) -> None:
    network, images, labels = set_up(weight_scaling_granularity=granularity)
    logits, loss, gradients = pass_through(network, images, labels)
    for factor in alphas(network):
        before = factor.detach().clone()
        with torch.no_grad():
            factor.mul_(3)
        scaled_logits, scaled_loss, scaled = pass_through(network, images, labels)
        with torch.no_grad():
            factor.copy_(before)
        torch.testing.assert_close(scaled_logits, logits, rtol=1e-9, atol=1e-11)
        assert scaled_loss == pytest.approx(loss, rel=1e-12)
        for name, gradient in gradients.items():
            if not name.endswith("alpha"):
                assert (scaled[name] - gradient).norm() <= 1e-9 * gradient.norm(), name


def test_the_gradient_grows_in_proportion_to_epsilon_over_variance() -> None:
    epsilons = [1e-9, 1e-8, 1e-7, 1e-6]
    slopes = [relative_slopes(*set_up(epsilon)) for epsilon in epsilons]
    for smaller, larger in pairwise(slopes):
        for before, after in zip(smaller, larger, strict=True):
            assert after / before == pytest.approx(10, rel=0.01)  # ten times the epsilon, ten times the gradient


def test_with_pytorchs_own_epsilon_the_gradient_is_there_but_tiny() -> None:
    assert 1e-9 < max(relative_slopes(*set_up(1e-5))) < 1e-6


def test_shrinking_the_factors_acts_as_a_larger_epsilon() -> None:
    # One layer's variance goes with the square of its factor, so a tenth of the factor is a hundred times epsilon.
    def slope_of_last(epsilon: float, factor: float) -> float:
        network, images, labels = set_up(epsilon)
        with torch.no_grad():
            dict(binary_layers(network))["conv6"].alpha.mul_(factor)  # type: ignore[union-attr]
        _, loss, gradients = pass_through(network, images, labels)
        alpha = dict(network.named_parameters())["conv6.alpha"].detach()
        return float((alpha * gradients["conv6.alpha"]).abs()) / loss

    assert slope_of_last(1e-7, 0.1) == pytest.approx(100 * slope_of_last(1e-7, 1.0), rel=0.05)


def in_evaluation_mode(network: nn.Module) -> None:
    network.eval()


def as_it_is(network: nn.Module) -> None:
    pass


@pytest.mark.parametrize(
    ("changes", "prepare"),
    [({}, in_evaluation_mode), ({"activation_window": "alpha"}, as_it_is)],
    ids=["running statistics do not divide it out", "a window in units of alpha depends on it"],
)
def test_where_it_does_not_hold(changes: dict[str, Any], prepare: Callable[[nn.Module], None]) -> None:
    network, images, labels = set_up(**changes)
    prepare(network)
    assert max(relative_slopes(network, images, labels)) > 1e-3


def test_window_in_units_of_alpha_leaves_the_function_alone_but_not_the_gradients() -> None:
    network, images, labels = set_up(activation_window="alpha")
    logits, _, gradients = pass_through(network, images, labels)
    with torch.no_grad():
        dict(binary_layers(network))["conv6"].activation.alpha.mul_(3)  # type: ignore[union-attr]
    scaled_logits, _, scaled = pass_through(network, images, labels)
    torch.testing.assert_close(scaled_logits, logits, rtol=1e-9, atol=1e-11)
    assert (scaled["conv5.weight"] - gradients["conv5.weight"]).norm() > 0.1 * gradients["conv5.weight"].norm()


def test_the_alphabet_of_the_activations_is_divided_out_too() -> None:
    # {-1, +1} is 2 {0, 1} - 1, and padded with its lower value it is so at the border as well: the convolution gives
    # twice the sums minus one constant a channel, which BatchNorm takes out. With the estimator's height doubled along
    # (2 H over the sign) the gradients agree too: under BatchNorm this variant is the method.
    half, labels_and_images = set_up(), set_up()[1:]
    logits, _, gradients = pass_through(half[0], *labels_and_images)
    signed = set_up(activation_values="plus_minus_one")[0]
    signed.load_state_dict(half[0].state_dict())
    signed_logits, _, signed_gradients = pass_through(signed, *labels_and_images)
    torch.testing.assert_close(signed_logits, logits, rtol=1e-9, atol=1e-11)
    for name, gradient in gradients.items():
        if not name.endswith("alpha"):
            assert (signed_gradients[name] - gradient).norm() <= 1e-9 * gradient.norm(), name


CLIPPED = {"activation_estimator": "clipped_ste", "weight_estimator": "clipped_ste"}
PREVIOUS = {
    "bnn": {"activation_values": "plus_minus_one", "activation_scaling": "none", "weight_scaling": "none", **CLIPPED},
    "xnor_net": {
        "activation_values": "plus_minus_one",
        "activation_scaling": "none",
        "weight_scaling": "analytic",
        "weight_scaling_granularity": "channel",
        **CLIPPED,
    },
}
"""Previous methods in this engine's switches (docs/method.md)."""


@pytest.mark.parametrize("name", PREVIOUS)
def test_previous_methods_are_the_variant_with_the_clipped_estimator(name: str) -> None:
    """BNN and XNOR-Net binarize to signs with the clipped STE; behind BatchNorm that is the ablation `clipped_ste`."""
    variant, images, labels = set_up(**CLIPPED)
    logits, _, gradients = pass_through(variant, images, labels)
    previous = set_up(**PREVIOUS[name])[0]
    weights = {key: value for key, value in variant.state_dict().items() if not key.endswith("alpha")}
    assert previous.load_state_dict(weights, strict=False).unexpected_keys == []
    found, _, others = pass_through(previous, images, labels)
    torch.testing.assert_close(found, logits, rtol=1e-9, atol=1e-11)
    if name == "xnor_net":  # its factors break ties of the max-pool in another way, so gradients may go elsewhere
        return
    for key, gradient in others.items():  # a layer's step is as high as the sign, so each layer doubles the gradient
        ratio = float((gradients[key] * gradient).sum() / (gradient * gradient).sum())
        assert (gradients[key] - ratio * gradient).norm() <= 1e-9 * gradients[key].norm(), key
        assert math.log2(ratio) == pytest.approx(round(math.log2(ratio)), abs=1e-9), key

"""The algebra of the export, against the framework's own layers, exactly."""

import pytest
import torch
from torch import Tensor, nn

from trained_binarization.binarization.layers import BinaryConv2d
from trained_binarization.binarization.method import Method
from trained_binarization.deploy.fold import Affine, Threshold, batch_norm, behind, of_sums, positive, signs
from trained_binarization.deploy.proof import sums_of

METHODS = {
    "method": Method(),
    "no scaling": Method(activation_scaling="none", weight_scaling="none"),
    "channel": Method(weight_scaling_granularity="channel"),
    "analytic": Method(weight_scaling="analytic"),
    "analytic channel": Method(weight_scaling="analytic", weight_scaling_granularity="channel"),
    "signed": Method(activation_values="plus_minus_one"),
    "alpha window": Method(activation_window="alpha"),
}


def layer_of(method: Method, kernel: int = 3, stride: int = 1, padding: int = 1) -> BinaryConv2d:
    torch.manual_seed(0)
    layer = BinaryConv2d(32, 16, kernel, stride, padding, method=method).double()
    with torch.no_grad():
        if layer.alpha is not None:
            layer.alpha.copy_(torch.rand_like(layer.alpha) + 0.1)
        if isinstance(layer.activation.alpha, nn.Parameter):
            layer.activation.alpha.fill_(0.7)
        layer.weight.view(-1)[0] = 0.0  # sign(0) is +1
    return layer


def norm_of(channels: int, negative: bool = True) -> nn.BatchNorm2d:
    """BatchNorm with every kind of channel: gamma positive, negative and zero."""
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(channels).double().eval()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.weight.normal_()
        norm.weight[:2] = 0.0
        norm.bias.normal_()
        norm.bias[0], norm.bias[1] = 0.5, -0.5
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return norm


def apply(value: Affine, x: Tensor) -> Tensor:
    return value.scale[:, None, None] * x + value.shift[:, None, None]


def bits(bit: Threshold, x: Tensor) -> Tensor:
    return (x > bit.threshold[:, None, None]) != bit.inverted[:, None, None]


@pytest.mark.parametrize("shape", [(1, 1, 0), (3, 1, 1), (3, 2, 1), (5, 2, 2), (3, 1, 0)], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_a_layers_output_is_an_affine_function_of_whole_sums(name: str, shape: tuple[int, int, int]) -> None:
    layer = layer_of(METHODS[name], *shape)
    x = torch.randn(2, 32, 9, 9).double()
    sums = sums_of(layer, x > 0)
    assert torch.equal(sums, sums.round())
    torch.testing.assert_close(apply(of_sums(layer), sums), layer(x), rtol=1e-12, atol=1e-12)
    assert set(signs(layer).unique().tolist()) == {-1, 1}
    assert signs(layer).view(-1)[0] == 1


@pytest.mark.parametrize("name", METHODS)
def test_thresholds_give_the_bits_of_batch_norm(name: str) -> None:
    layer, norm = layer_of(METHODS[name]), norm_of(16)
    x = torch.randn(4, 32, 12, 12).double()
    value = behind(batch_norm(norm), of_sums(layer))
    sums = sums_of(layer, x > 0)
    expected = norm(layer(x))
    bit = positive(value, whole=True)
    # Bits agree wherever rounding cannot decide: here nothing is nearer to zero, but in channels of gamma zero.
    assert (expected[:, 2:].abs() > 1e-9).all()
    assert torch.equal(bits(bit, sums), expected > 0)
    assert (bit.inverted[2:] == (norm.weight[2:] < 0)).all()
    assert bit.inverted.any()


def test_thresholds_of_sums_lie_half_way_and_ties_are_zero_bits() -> None:
    # v = S - 3 is positive from 4 on; v = 3 - S up to 2; v = 0 is no positive value.
    scale, shift = torch.tensor([1.0, -1.0, 2.0]).double(), torch.tensor([-3.0, 3.0, -5.0]).double()
    bit = positive(Affine(scale, shift), whole=True)
    assert bit.threshold.tolist() == [3.5, 2.5, 2.5]
    sums = torch.arange(6).double().view(1, 1, 1, 6).expand(1, 3, 1, 6)
    assert bits(bit, sums)[0, :, 0].int().tolist() == [[0, 0, 0, 0, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]


def test_channels_of_gamma_zero_are_constant() -> None:
    bit = positive(Affine(torch.zeros(3).double(), torch.tensor([0.1, -0.1, 0.0]).double()), whole=True)
    sums = torch.tensor([-1e9, 0.0, 1e9]).double().view(1, 1, 1, 3).expand(1, 3, 1, 3)
    assert bits(bit, sums)[0, :, 0].int().tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0]]


def test_pooling_before_batch_norm_is_pooling_of_sums() -> None:
    # v grows with S, since factors are positive: a window's largest v is its largest S's, whatever gamma's sign.
    layer, norm = layer_of(Method()), norm_of(16)
    x = torch.randn(4, 32, 12, 12).double()
    pool = nn.MaxPool2d(2)
    bit = positive(behind(batch_norm(norm), of_sums(layer)), whole=True)
    assert torch.equal(bits(bit, pool(sums_of(layer, x > 0))), norm(pool(layer(x))) > 0)

"""VGG-Small: exact counts at full width, the order of its layers, one definition for both precisions."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trained_binarization.binarization.layers import BinaryConv2d, alphas, binary_layers, latent_weights
from trained_binarization.binarization.method import Method
from trained_binarization.networks import build
from trained_binarization.networks.blocks import ReLUConv2d
from trained_binarization.networks.summary import layer_costs
from trained_binarization.networks.vgg_small import VGGSmall


def total(width: float = 1.0, size: int = 32, method: Method | None = None) -> dict[str, Any]:
    return layer_costs(VGGSmall(method or Method(), width=width, image_size=size), size)[-1]


def test_counts_at_full_width() -> None:
    row = total()
    assert row["parameters"] == 4_660_106
    assert row["binary_parameters"] == 4_571_136
    assert row["macs"] == 607_600_640  # 607.6 M
    assert row["binary_macs"] == 603_979_776  # 604.0 M
    assert row["bytes_float"] == 4 * 4_660_106  # 18.64 MB
    assert row["bytes_one_bit"] == 4_571_136 // 8 + 4 * (4_660_106 - 4_571_136)  # 0.93 MB
    assert f"{row['bytes_float'] / 1e6:.2f} {row['bytes_one_bit'] / 1e6:.2f}" == "18.64 0.93"
    assert f"{row['macs'] / 1e6:.1f} {row['binary_macs'] / 1e6:.1f}" == "607.6 604.0"


def test_counts_of_the_network_itself() -> None:
    network = VGGSmall(Method())
    assert sum(p.numel() for p in latent_weights(network)) == 4_571_136
    apart = {id(p) for p in alphas(network)}
    assert sum(p.numel() for p in network.parameters() if id(p) not in apart) == 4_660_106
    assert len(alphas(network)) == 10
    assert all(factor.numel() == 1 for factor in alphas(network))


def test_counts_by_formula() -> None:
    channels, sizes = [3, 128, 128, 256, 256, 512, 512], [32, 32, 16, 16, 8, 8]
    weights = [9 * a * b for a, b in pairwise(channels)]
    macs = [weight * size**2 for weight, size in zip(weights, sizes, strict=True)]
    row = total()
    assert row["binary_parameters"] == sum(weights[1:])
    assert row["parameters"] == sum(weights) + 2 * sum(channels[1:]) + 512 * 16 * 10 + 10
    assert row["binary_macs"] == sum(macs[1:])
    assert row["macs"] == sum(macs) + 512 * 16 * 10


@pytest.mark.parametrize("width", [0.25, 1.0])
def test_full_precision_and_binary_differ_in_alphas_only(width: float) -> None:
    full, binary = VGGSmall(None, width=width), VGGSmall(Method(), width=width)
    shapes = {name: tuple(p.shape) for name, p in full.state_dict().items()}
    binary_shapes = {name: tuple(p.shape) for name, p in binary.state_dict().items()}
    extra = set(binary_shapes) - set(shapes)
    assert extra == {f"conv{k}.{name}" for k in range(2, 7) for name in ("alpha", "activation.alpha")}
    assert shapes == {name: shape for name, shape in binary_shapes.items() if name not in extra}
    missing, unexpected = binary.load_state_dict(full.state_dict(), strict=False)
    assert set(missing) == extra
    assert unexpected == []


def test_first_convolution_and_classifier_are_full_precision() -> None:
    network = VGGSmall(Method(), width=0.25)
    assert [name for name, _ in binary_layers(network)] == [f"conv{k}" for k in range(2, 7)]
    assert type(network.conv1) is nn.Conv2d
    assert type(network.classifier) is nn.Linear
    assert all(m.bias is None for m in network.modules() if isinstance(m, nn.Conv2d))
    assert all(not isinstance(m, BinaryConv2d) for m in VGGSmall(None).modules())


@pytest.mark.parametrize("method", [None, Method()], ids=["full precision", "binary"])
def test_order_of_the_layers(method: Method | None) -> None:
    network = VGGSmall(method, width=0.125).eval()
    seen: list[tuple[str, int, int]] = []

    def note(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen.append((name, inputs[0].shape[-1], output.shape[-1]))

        return hook

    for name, module in network.named_children():
        module.register_forward_hook(note(name))
    network(torch.randn(2, 3, 32, 32))
    # (layer, input's side, output's side): pooling lies between a convolution and its BatchNorm.
    assert seen == [
        ("conv1", 32, 32),
        ("bn1", 32, 32),
        ("conv2", 32, 32),
        ("bn2", 16, 16),
        ("conv3", 16, 16),
        ("bn3", 16, 16),
        ("conv4", 16, 16),
        ("bn4", 8, 8),
        ("conv5", 8, 8),
        ("bn5", 8, 8),
        ("conv6", 8, 8),
        ("bn6", 4, 4),
        ("classifier", 512 // 8 * 16, 10),
    ]


def test_full_precision_is_relu_before_each_convolution() -> None:
    torch.manual_seed(0)
    network = VGGSmall(None, width=0.125, image_size=16).double().eval()
    assert isinstance(network.conv2, ReLUConv2d)
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    weight = {name: p for name, p in network.state_dict().items() if name.startswith("conv")}
    out = F.conv2d(x, weight["conv1.weight"], padding=1)
    for k in range(2, 7):
        out = F.conv2d(F.relu(network.get_submodule(f"bn{k - 1}")(out)), weight[f"conv{k}.weight"], padding=1)
        out = F.max_pool2d(out, 2) if k % 2 == 0 else out
    expected = network.classifier(F.relu(network.bn6(out)).flatten(1))
    torch.testing.assert_close(network(x), expected, rtol=1e-12, atol=1e-12)


def test_pooling_works_on_real_values() -> None:
    # What conv2 hands to the pooling takes many values; were it binarized before, it would take two.
    network = VGGSmall(Method(), width=0.25).train()
    handed: list[Tensor] = []
    network.conv2.register_forward_hook(lambda *arguments: handed.append(arguments[2]))
    network(torch.randn(2, 3, 32, 32))
    assert len(handed[0].unique()) > 20


@pytest.mark.parametrize("width", [0.01, 0.1, 0.25, 0.37, 0.5, 1.5])
@pytest.mark.parametrize("size", [16, 32])
def test_any_width_works_and_counts_agree_with_the_network(width: float, size: int) -> None:
    network = build("vgg_small", Method(), size, 7, width=width)
    apart = {id(p) for p in alphas(network)}
    own = sum(p.numel() for p in network.parameters() if id(p) not in apart)
    weights = dict(network.named_parameters())
    channels = [len(weights[f"conv{k}.weight"]) for k in range(1, 7)]
    assert channels == [max(1, round(c * width)) for c in (128, 128, 256, 256, 512, 512)]
    if width <= 0.5:
        assert network(torch.randn(2, 3, size, size)).shape == (2, 7)
    assert layer_costs(network, size)[-1]["parameters"] == own


@pytest.mark.parametrize("width", [0.25, 0.5, 1.0])
def test_studies_widths_give_channels_in_multiples_of_32(width: float) -> None:
    network = VGGSmall(Method(), width=width)
    assert all(layer.weight.shape[0] % 32 == 0 for _, layer in binary_layers(network))


def test_costs_are_the_sum_of_their_rows_and_the_same_for_every_variant() -> None:
    rows = layer_costs(VGGSmall(Method(weight_scaling_granularity="channel"), width=0.25), 32)
    for key in ("parameters", "binary_parameters", "macs", "binary_macs", "bytes_float", "bytes_one_bit"):
        assert rows[-1][key] == sum(row[key] for row in rows[:-1])
    assert rows[-1] == total(0.25)
    full = layer_costs(VGGSmall(None, width=0.25), 32)[-1]
    assert full["binary_parameters"] == full["binary_macs"] == 0
    assert full["parameters"] == rows[-1]["parameters"]
    assert full["bytes_one_bit"] == full["bytes_float"]

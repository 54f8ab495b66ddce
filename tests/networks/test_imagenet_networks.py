"""AlexNet and ResNet-18: exact counts in the paper's setting, one definition for both precisions."""

from typing import Any

import pytest
import torch
from torch import nn

from trained_binarization.binarization.layers import BinaryConv2d, binary_layers
from trained_binarization.binarization.method import Method
from trained_binarization.networks import build
from trained_binarization.networks.alexnet import AlexNet
from trained_binarization.networks.resnet18 import ResNet18
from trained_binarization.networks.summary import layer_costs


def total(network: nn.Module, size: int) -> dict[str, Any]:
    return layer_costs(network, size)[-1]


def test_alexnets_counts() -> None:
    row = total(AlexNet(Method()), 227)
    assert (row["parameters"], row["binary_parameters"]) == (62_387_912, 58_236_928)
    assert (round(row["macs"] / 1e6), round(row["binary_macs"] / 1e6)) == (1135, 1026)


@pytest.mark.parametrize("binary_downsample", [False, True])
def test_resnet18s_counts(binary_downsample: bool) -> None:
    row = total(ResNet18(Method(), binary_downsample=binary_downsample), 224)
    assert row["parameters"] == 11_689_512
    assert row["binary_parameters"] == 10_985_472 + binary_downsample * 172_032
    assert round(row["macs"] / 1e6) == 1814
    if not binary_downsample:
        assert round(row["binary_macs"] / 1e6) == 1676


def test_resnet18_has_torchvisions_parameters() -> None:
    models = pytest.importorskip("torchvision.models")
    ours, theirs = ResNet18(None), models.resnet18()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    # The same weights of convolutions and classifier, shape by shape; BatchNorms stand elsewhere.
    shapes = [sorted(tuple(p.shape) for p in net.parameters() if p.dim() > 1) for net in (ours, theirs)]
    assert shapes[0] == shapes[1]


ARCHITECTURES = {
    "alexnet": ({"width": 0.25}, 67),
    "resnet18": ({"width": 0.25, "binary_downsample": False}, 64),
    "resnet18 binary downsample": ({"width": 0.25, "binary_downsample": True}, 64),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_both_precisions_are_one_definition_and_train(name: str) -> None:
    architecture, size = ARCHITECTURES[name]
    full, binary = (build(name.split()[0], method, size, 10, **architecture) for method in (None, Method()))
    shapes, binary_shapes = ({k: tuple(v.shape) for k, v in n.state_dict().items()} for n in (full, binary))
    extra = set(binary_shapes) - set(shapes)
    assert {k: binary_shapes[k] for k in shapes} == shapes
    assert all(key.endswith("alpha") for key in extra)
    assert len(extra) == 2 * len(list(binary_layers(binary)))
    assert not list(binary_layers(full))
    x = torch.randn(4, 3, size, size)
    for network in (full, binary):
        network(x).square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_first_convolution_and_classifier_stay_full_precision(name: str) -> None:
    architecture, size = ARCHITECTURES[name]
    network = build(name.split()[0], Method(), size, 10, **architecture)
    floats = [key for key, one in network.named_modules() if type(one) in (nn.Conv2d, nn.Linear)]
    expected = ["conv1", "classifier"]
    if name == "resnet18":
        expected[1:1] = [f"blocks.{number}.downsample" for number in (2, 4, 6)]
    assert floats == expected
    assert sum(isinstance(one, BinaryConv2d) for one in network.modules()) == {"alexnet": 6, "resnet18": 16}.get(
        name, 19
    )


def test_alexnets_last_layers_see_the_whole_map() -> None:
    for size, kernel in ((227, 6), (67, 1), (224, 5)):
        assert AlexNet(Method(), width=0.03, image_size=size).fc6.weight.shape[2:] == (kernel, kernel)


def test_too_small_images_are_told() -> None:
    with pytest.raises(ValueError, match="image_size: found 66 pixels; allowed: at least 67"):
        AlexNet(Method(), width=0.03, image_size=66)

"""Networks by name, full precision and binary from one definition each."""

from collections.abc import Callable

from torch import nn

from trained_binarization.binarization.method import Method
from trained_binarization.networks.alexnet import AlexNet
from trained_binarization.networks.resnet18 import ResNet18
from trained_binarization.networks.vgg_small import VGGSmall

NETWORKS: dict[str, Callable[..., nn.Module]] = {"vgg_small": VGGSmall, "alexnet": AlexNet, "resnet18": ResNet18}


def list_networks() -> list[str]:
    """The names that `build` knows."""
    return sorted(NETWORKS)


def build(name: str, method: Method | None, image_size: int, classes: int, **switches: object) -> nn.Module:
    """The network of that name: full precision where method is None, else binary by that method.

    It takes float images (N, 3, image_size, image_size) and gives logits (N, classes). `switches` are those of the
    network's own definition, such as its width. ValueError for an unknown name, or images that are too small.
    """
    if name not in NETWORKS:
        raise ValueError(f"network: found {name!r}; allowed: {', '.join(list_networks())}")
    return NETWORKS[name](method, image_size=image_size, classes=classes, **switches)

"""Networks by name, full precision and binary from one definition each."""

from collections.abc import Callable

from torch import nn

from trained_binarization.networks.alexnet import AlexNet
from trained_binarization.networks.resnet18 import ResNet18
from trained_binarization.networks.vgg_small import VGGSmall
from trained_binarization.study import Architecture, Method

NETWORKS: dict[str, Callable[..., nn.Module]] = {"vgg_small": VGGSmall, "alexnet": AlexNet, "resnet18": ResNet18}


def build(name: str, architecture: Architecture, method: Method | None, image_size: int, classes: int) -> nn.Module:
    """The network of that name: full precision where method is None, else binary by that method."""
    return NETWORKS[name](method, image_size=image_size, classes=classes, **architecture.model_dump())

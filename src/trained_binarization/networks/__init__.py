"""Networks by name, full precision and binary from one definition each."""

from torch import nn

from trained_binarization.networks.vgg_small import VGGSmall
from trained_binarization.study import Architecture, Method

NETWORKS = {"vgg_small": VGGSmall}


def build(name: str, architecture: Architecture, method: Method | None, image_size: int, classes: int) -> nn.Module:
    """The network of that name: full precision where method is None, else binary by that method."""
    return NETWORKS[name](method, width=architecture.width, image_size=image_size, classes=classes)

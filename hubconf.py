"""For torch.hub: `torch.hub.load(FOLDER, "vgg_small", source="local")` builds a binary network, untrained."""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "src"))

from torch import nn

from trained_binarization import Method, build

dependencies = ["torch"]
PAPER = Method()


def _network(name: str, image_size: int, classes: int, method: Method | None = PAPER, **switches: object) -> nn.Module:
    """The untrained network: binary by the method (by default the paper's, as reconstructed), or real for None."""
    return build(name, method, image_size=image_size, classes=classes, **switches)


vgg_small = partial(_network, "vgg_small", image_size=32, classes=10)
alexnet = partial(_network, "alexnet", image_size=227, classes=1000)
resnet18 = partial(_network, "resnet18", image_size=224, classes=1000)

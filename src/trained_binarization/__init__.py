"""A replication of Xu & Cheung, "Accurate and Compact CNNs with Trained Binarization" (BMVC 2019).

The library's names: the layers, the method's switches, and the networks built of them.

>>> from trained_binarization import BinaryConv2d, Method, build
>>> layer = BinaryConv2d(16, 32, 3, padding=1, method=Method(weight_scaling_granularity="channel"))
>>> network = build("vgg_small", Method(), image_size=32, classes=10)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trained_binarization.binarization.layers import BinaryActivation, BinaryConv2d, BinaryLinear
    from trained_binarization.binarization.method import Method
    from trained_binarization.networks import build, list_networks

__all__ = ["BinaryActivation", "BinaryConv2d", "BinaryLinear", "Method", "build", "list_networks"]
__version__ = "0.1.0"

_ROOMS = {"BinaryActivation": "binarization.layers", "BinaryConv2d": "binarization.layers"}
_ROOMS |= {"BinaryLinear": "binarization.layers", "Method": "binarization.method"}
_ROOMS |= {"build": "networks", "list_networks": "networks"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: torch takes seconds, and the command line's help needs none."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]

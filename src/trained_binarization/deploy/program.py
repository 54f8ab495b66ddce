"""What the exported network does, step by step, in whatever carries the steps out: `export` makes a graph of them.

A `Backend` has the steps. The programs below walk through a trained network of the framework's and fold as they go:
between a convolution's sums and the next bits there is nothing but a comparison.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from trained_binarization.binarization.layers import BinaryConv2d
from trained_binarization.deploy.fold import Affine, Threshold, batch_norm, behind, of_sums, positive
from trained_binarization.networks.alexnet import AlexNet
from trained_binarization.networks.resnet18 import Block, ResNet18
from trained_binarization.networks.vgg_small import VGGSmall


class Backend(Protocol):
    """The steps, on values of the backend's own kind, (N, C, H, W)."""

    def convolution(self, x: Any, layer: nn.Conv2d) -> Any:
        """A float convolution without bias."""

    def sums(self, bits: Any, layer: BinaryConv2d) -> Any:
        """S = conv(2 bits - 1, signs), padded with -1."""

    def bits(self, x: Any, bit: Threshold) -> Any:
        """Bits {0, 1}."""

    def affine(self, x: Any, value: Affine) -> Any:
        """scale * x + shift, by channel."""

    def max_pool(self, x: Any, size: int, stride: int, padding: int) -> Any:
        """Max-pooling; what is padded never wins."""

    def add(self, x: Any, y: Any) -> Any:
        """x + y."""

    def relu(self, x: Any) -> Any:
        """max(x, 0)."""

    def mean(self, x: Any) -> Any:
        """The mean over all places, (N, C, 1, 1)."""

    def classify(self, x: Any, layer: nn.Linear) -> Any:
        """Logits (N, classes) of the flattened x."""


@dataclass(frozen=True)
class Value:
    """A value that is folded: affine(x); `whole` where x takes whole numbers only."""

    backend: Backend
    x: Any
    affine: Affine | None = None
    whole: bool = False

    def through(self, norm: nn.BatchNorm2d) -> "Value":
        """Behind BatchNorm."""
        folded = batch_norm(norm)
        return Value(self.backend, self.x, behind(folded, self.affine) if self.affine else folded, self.whole)

    def pooled(self, size: int, stride: int, padding: int = 0) -> "Value":
        """Max-pooled: the affine map grows, since scaling factors are positive, so x is pooled in its place."""
        return Value(self.backend, self.backend.max_pool(self.x, size, stride, padding), self.affine, self.whole)

    def bits(self) -> Any:
        """Where it is positive."""
        assert self.affine is not None
        return self.backend.bits(self.x, positive(self.affine, self.whole))

    def real(self) -> Any:
        """The value itself."""
        return self.x if self.affine is None else self.backend.affine(self.x, self.affine)


def _binary(backend: Backend, bits: Any, layer: nn.Module) -> Value:
    assert isinstance(layer, BinaryConv2d)
    return Value(backend, backend.sums(bits, layer), of_sums(layer), whole=True)


def vgg_small(network: VGGSmall, x: Any, backend: Backend) -> Any:
    """VGG-Small from normalised images to logits."""
    value = Value(backend, backend.convolution(x, network.conv1)).through(network.bn1)
    for number in range(2, 7):
        value = _binary(backend, value.bits(), getattr(network, f"conv{number}"))
        value = value.pooled(2, 2) if number % 2 == 0 else value
        value = value.through(getattr(network, f"bn{number}"))
    return backend.classify(backend.relu(value.real()), network.classifier)


def alexnet(network: AlexNet, x: Any, backend: Backend) -> Any:
    """AlexNet from normalised images to logits."""
    value = Value(backend, backend.convolution(x, network.conv1)).pooled(3, 2).through(network.bn1)
    for number, name in enumerate(("conv2", "conv3", "conv4", "conv5", "fc6", "fc7"), start=2):
        value = _binary(backend, value.bits(), getattr(network, name))
        value = value.pooled(3, 2) if name in ("conv2", "conv5") else value
        value = value.through(getattr(network, f"bn{number}"))
    return backend.classify(backend.relu(value.real()), network.classifier)


def resnet18(network: ResNet18, x: Any, backend: Backend) -> Any:
    """ResNet-18 from normalised images to logits."""
    x = Value(backend, backend.convolution(x, network.conv1)).pooled(3, 2, 1).real()
    for block in network.blocks:
        assert isinstance(block, Block)
        normalised = Value(backend, x).through(block.bn1)
        bits = normalised.bits()
        if isinstance(block.downsample, BinaryConv2d):
            x = _binary(backend, bits, block.downsample).through(block.downsample_bn).real()
        elif isinstance(block.downsample, nn.Conv2d):
            shortcut = backend.convolution(normalised.real(), block.downsample)
            x = Value(backend, shortcut).through(block.downsample_bn).real()
        inside = _binary(backend, bits, block.conv1).through(block.bn2).bits()
        x = backend.add(_binary(backend, inside, block.conv2).real(), x)
    last = backend.relu(Value(backend, x).through(network.bn).real())
    return backend.classify(backend.mean(last), network.classifier)


PROGRAMS: dict[type[nn.Module], Callable[[Any, Any, Backend], Any]] = {
    VGGSmall: vgg_small,
    AlexNet: alexnet,
    ResNet18: resnet18,
}
"""By the network's class."""

"""Does the exported model compute what the framework's network does? Integer by integer, then image by image.

What is compared: (1) every binary convolution alone, on the bits that real images give it: all of its sums have to be
equal; (2) the predictions for all images. The first convolution is float, and two implementations round its sums
differently: where BatchNorm puts a value next to zero, the bit can fall on the other side, and what follows differs.
Each differing prediction is traced to where its bits first part: by replaying the folded network, exactly, behind
OpenVINO's own first convolution.
"""

from dataclasses import dataclass

import numpy as np
import openvino as ov
import torch
from openvino import opset13
from torch import Tensor, nn
from torch.nn import functional as F

from trained_binarization.binarization.layers import BinaryConv2d, binary_layers
from trained_binarization.datasets.augment import normalise
from trained_binarization.deploy import export
from trained_binarization.deploy.export import OpenVINO
from trained_binarization.deploy.fold import Affine, Threshold, signs
from trained_binarization.deploy.model import ExportedModel, settings
from trained_binarization.deploy.program import PROGRAMS

TIE = 1e-4
"""How near to zero, in units of BatchNorm's output, a value lies whose bit may differ: float32's rounding, grown."""

ALLOWED = 5 / 10_000
"""The share of images whose prediction may differ."""

LAYERS_ON = 16
"""Images whose bits each binary convolution is compared on."""


@dataclass(frozen=True)
class LayerProof:
    """One binary convolution: how many sums were compared, and how many of them differ."""

    layer: str
    sums: int
    differing: int


@dataclass(frozen=True)
class Difference:
    """An image whose prediction differs: where its bits first part, how many do, and how far from zero they lie."""

    image: int
    framework: int
    exported: int
    first_layer: str
    bits: int
    distance: float


@dataclass(frozen=True)
class Proof:
    """The whole comparison; accuracies in percent."""

    layers: list[LayerProof]
    images: int
    accuracy_framework: float
    accuracy_exported: float
    differences: list[Difference]

    def faults(self) -> list[str]:
        """What a proof must not show."""
        found = [f"{one.layer}: {one.differing} of {one.sums} sums differ" for one in self.layers if one.differing]
        if len(self.differences) > ALLOWED * self.images:
            found.append(f"{len(self.differences)} of {self.images} predictions differ; allowed: {ALLOWED:.2%}")
        found += [
            f"image {one.image}: parts in {one.first_layer} at {one.distance:.1e} from a tie; allowed: {TIE:.0e}"
            for one in self.differences
            if not one.distance < TIE
        ]
        return found


def sums_of(layer: BinaryConv2d, bits: Tensor) -> Tensor:
    """S = conv(2 bits - 1, signs) as the framework computes it, exactly, in float64; (N, C, H, W) bits in {0, 1}."""
    padded = F.pad(2 * bits.double() - 1, [layer.padding] * 4, value=-1)
    return F.conv2d(padded, signs(layer).double(), stride=layer.stride)


def exported_sums(layer: BinaryConv2d, bits: Tensor, threads: int = 1) -> np.ndarray:
    """S of one layer by OpenVINO, from bits in {0, 1}."""
    x = opset13.parameter(list(bits.shape), np.float32)
    half = Threshold(torch.full((bits.shape[1],), 0.5).double(), torch.zeros(bits.shape[1], dtype=torch.bool))
    steps = OpenVINO()
    model = ov.Model([steps.sums(steps.bits(x, half), layer)], [x], "layer")
    compiled = ov.Core().compile_model(model, "CPU", settings(threads))
    result: np.ndarray = compiled(bits.float().numpy())[0]
    return result


class Replay:
    """The steps of a program in torch, float64, but for the first convolution, whose values are given.

    `bits_of`: what each binary convolution was given, by layer.
    """

    def __init__(self, first: Tensor) -> None:
        self.first: Tensor | None = first
        self.bits_of: dict[BinaryConv2d, Tensor] = {}

    def convolution(self, x: Tensor, layer: nn.Conv2d) -> Tensor:
        """The values that were given, once; then a float convolution."""
        if self.first is not None:
            x, self.first = self.first.double(), None
            return x
        return F.conv2d(x, layer.weight.double(), None, layer.stride, layer.padding)

    def sums(self, bits: Tensor, layer: BinaryConv2d) -> Tensor:
        """Exact sums."""
        self.bits_of[layer] = bits
        return sums_of(layer, bits)

    def bits(self, x: Tensor, bit: Threshold) -> Tensor:
        """By comparison."""
        return (x > bit.threshold[:, None, None]) != bit.inverted[:, None, None]

    def affine(self, x: Tensor, value: Affine) -> Tensor:
        """scale * x + shift."""
        return value.scale[:, None, None] * x + value.shift[:, None, None]

    def max_pool(self, x: Tensor, size: int, stride: int, padding: int) -> Tensor:
        """Max-pooling."""
        return F.max_pool2d(x, size, stride, padding)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """x + y."""
        return x + y

    def relu(self, x: Tensor) -> Tensor:
        """max(x, 0)."""
        return F.relu(x)

    def mean(self, x: Tensor) -> Tensor:
        """Over all places."""
        return x.mean((2, 3), keepdim=True)

    def classify(self, x: Tensor, layer: nn.Linear) -> Tensor:
        """Logits."""
        return F.linear(x.flatten(1), layer.weight.double(), layer.bias.double())


def _inputs(network: nn.Module, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """(what each binary layer is given in the framework, by its name; the logits)."""
    found: dict[str, Tensor] = {}
    handles = [
        layer.register_forward_pre_hook(lambda _, arguments, name=name: found.__setitem__(name, arguments[0]))
        for name, layer in binary_layers(network)
    ]
    logits = network(x)
    for handle in handles:
        handle.remove()
    return found, logits


@torch.no_grad()
def compare_layers(network: nn.Module, images: Tensor, mean: Tensor, std: Tensor) -> list[LayerProof]:
    """Each binary convolution alone, on the bits that these images give it in the framework."""
    inputs, _ = _inputs(network, normalise(images, mean, std))
    found = []
    for name, layer in binary_layers(network):
        assert isinstance(layer, BinaryConv2d)
        bits = (inputs[name] > 0).float()
        expected = sums_of(layer, bits).numpy()
        found.append(LayerProof(name, expected.size, int((exported_sums(layer, bits) != expected).sum())))
    return found


@torch.no_grad()
def compare(
    network: nn.Module, exported: ExportedModel, images: Tensor, labels: Tensor, mean: Tensor, std: Tensor, threads: int
) -> Proof:
    """Everything, on uint8 images (N, S, S, 3): `network` in evaluation, on the CPU."""
    logits = torch.cat([network(normalise(part, mean, std)) for part in images.split(250)])
    ours, theirs = torch.from_numpy(exported.logits(images.numpy(), threads)).argmax(1), logits.argmax(1)
    differing = (ours != theirs).nonzero().flatten().tolist()
    return Proof(
        layers=compare_layers(network, images[:LAYERS_ON], mean, std),
        images=len(images),
        accuracy_framework=100 * (theirs == labels).double().mean().item(),
        accuracy_exported=100 * (ours == labels).double().mean().item(),
        differences=[
            Difference(i, int(theirs[i]), int(ours[i]), *_parting(network, images[i : i + 1], mean, std, int(ours[i])))
            for i in differing
        ],
    )


def _first_convolution(network: nn.Module, image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The first convolution's values as OpenVINO computes them."""
    size = image.shape[1]
    parameter = opset13.parameter([1, size, size, 3], np.uint8)
    first = OpenVINO().convolution(export.normalised(parameter, mean, std), network.conv1)  # type: ignore[arg-type]
    compiled = ov.Core().compile_model(ov.Model([first], [parameter], "conv1"), "CPU", settings(1))
    return torch.from_numpy(compiled(image.numpy())[0].copy())


def _parting(network: nn.Module, image: Tensor, mean: Tensor, std: Tensor, exported: int) -> tuple[str, int, float]:
    """(the first layer whose input bits differ, how many, their greatest distance from zero) for one image.

    Where none differ, it is the classifier, and how far its logits of the two predictions lie apart. The distance is
    infinite where the replay does not predict what the exported model did: then bits are not the reason.
    """
    values, (logits,) = _inputs(network, normalise(image, mean, std))
    replay = Replay(_first_convolution(network, image, mean, std))
    replayed = PROGRAMS[type(network)](network, None, replay)[0]
    if int(replayed.argmax()) != exported:
        return "replay", 0, float("inf")
    names = {layer: name for name, layer in binary_layers(network)}
    for layer, bits in replay.bits_of.items():  # in the order of the computation
        parted = bits != (values[names[layer]] > 0)
        if parted.any():
            return names[layer], int(parted.sum()), values[names[layer]][parted].abs().max().item()
    return "classifier", 0, (logits.max() - logits[exported]).item()

"""Does the exported model compute what the framework's network does? Integer by integer, then image by image.

What is compared: (1) every binary convolution alone, on the bits that real images give it: all of its sums have to be
equal; (2) the predictions for all images. The first convolution is float, and two implementations round its sums
differently: where BatchNorm puts a value next to zero, the bit can fall on the other side, and what follows differs.
Each differing prediction is traced to where its bits first part: by replaying the folded network, exactly, behind
OpenVINO's own first convolution.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
import torch
from openvino import opset13
from torch import Tensor, nn
from torch.nn import functional as F

from trained_binarization.binarization.layers import BinaryConv2d, binary_layers
from trained_binarization.datasets.augment import normalise
from trained_binarization.deploy import export
from trained_binarization.deploy.fold import Threshold, batch_norm, behind, of_sums, positive, signs
from trained_binarization.deploy.model import ExportedModel, settings
from trained_binarization.networks.vgg_small import VGGSmall

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
    model = ov.Model([export.binary_convolution(export.binarize(x, half), layer)], [x], "layer")
    compiled = ov.Core().compile_model(model, "CPU", settings(threads))
    result: np.ndarray = compiled(bits.float().numpy())[0]
    return result


@torch.no_grad()
def compare_layers(network: nn.Module, images: Tensor, mean: Tensor, std: Tensor) -> list[LayerProof]:
    """Each binary convolution alone, on the bits that these images give it in the framework."""
    inputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _, arguments: inputs.__setitem__(name, arguments[0])

    handles = [layer.register_forward_pre_hook(keep(name)) for name, layer in binary_layers(network)]
    network(normalise(images, mean, std))
    for handle in handles:
        handle.remove()
    found = []
    for name, layer in binary_layers(network):
        assert isinstance(layer, BinaryConv2d)
        bits = (inputs[name] > 0).float()
        expected = sums_of(layer, bits).numpy()
        found.append(LayerProof(name, expected.size, int((exported_sums(layer, bits) != expected).sum())))
    return found


@torch.no_grad()
def compare(
    network: VGGSmall, exported: ExportedModel, images: Tensor, labels: Tensor, mean: Tensor, std: Tensor, threads: int
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


def _parting(network: VGGSmall, image: Tensor, mean: Tensor, std: Tensor, exported: int) -> tuple[str, int, float]:
    """(the first layer whose input bits differ, how many, their greatest distance from zero) for one image.

    Where none differ, it is the classifier, and how far its logits of the two predictions lie apart. The distance is
    infinite where the replay does not predict what the exported model did: then bits are not the reason.
    """
    size = image.shape[1]
    parameter = opset13.parameter([1, size, size, 3], np.uint8)
    model = ov.Model([export.convolution(export.normalised(parameter, mean, std), network.conv1)], [parameter], "conv1")
    x = torch.from_numpy(ov.Core().compile_model(model, "CPU", settings(1))(image.numpy())[0]).double()
    values: dict[str, Tensor] = {}
    handles = [
        layer.register_forward_pre_hook(lambda _, arguments, name=name: values.__setitem__(name, arguments[0]))
        for name, layer in binary_layers(network)
    ]
    logits = network(normalise(image, mean, std))[0]
    for handle in handles:
        handle.remove()
    first: tuple[str, int, float] | None = None
    inner, whole, norm = None, False, network.bn1
    for number, (name, layer) in enumerate(binary_layers(network), start=2):
        assert isinstance(layer, BinaryConv2d)
        folded = batch_norm(norm)
        bit = positive(behind(folded, inner) if inner else folded, whole)
        bits = (x > bit.threshold[:, None, None]) != bit.inverted[:, None, None]
        parted = bits != (values[name] > 0)
        if first is None and parted.any():
            first = name, int(parted.sum()), values[name][parted].abs().max().item()
        x = sums_of(layer, bits)
        x = F.max_pool2d(x, 2) if number % 2 == 0 else x
        inner, whole, norm = of_sums(layer), True, getattr(network, f"bn{number}")
    assert inner is not None
    last = behind(batch_norm(norm), inner)
    x = F.relu(last.scale[:, None, None] * x + last.shift[:, None, None])
    replayed = F.linear(x.flatten(1), network.classifier.weight.double(), network.classifier.bias.double())[0]
    if int(replayed.argmax()) != exported:
        return "replay", 0, float("inf")
    return first or ("classifier", 0, (logits.max() - logits[exported]).item())

"""Does the exported model compute what the framework's network does? Integer by integer, then image by image.

What is compared: (1) every binary convolution alone, on the bits that real images give it: all of its sums have to be
equal; (2) the predictions for all images. The first convolution is float (in ResNet-18 all that passes from block to
block), and two implementations round its sums differently: where BatchNorm puts a value next to zero, the bit can fall
on the other side, and what follows differs. Each differing prediction is traced to where its bits first part.
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
from trained_binarization.deploy.fold import Threshold, signs
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
    padded = F.pad(2 * bits.double() - 1, layer._reversed_padding_repeated_twice, value=-1)
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


@torch.no_grad()
def _parting(network: nn.Module, image: Tensor, mean: Tensor, std: Tensor, exported: int) -> tuple[str, int, float]:
    """(the first layer that is given other bits, how many, their greatest distance from zero) for one image.

    Where none differ, it is the classifier, and how far its logits of the two predictions lie apart. The exported
    network is built once more with what its bits come from as further outputs (the bits themselves would make OpenVINO
    crash); the distance is infinite where that one does not predict what the exported model did.
    """
    values, (logits,) = _inputs(network, normalise(image, mean, std))
    steps, parameter = OpenVINO(), opset13.parameter(list(image.shape), np.uint8)
    predicted = PROGRAMS[type(network)](network, export.normalised(parameter, mean, std), steps)
    model = ov.Model([predicted, *(x for x, _ in steps.compared.values())], [parameter], "observed")
    found = list(ov.Core().compile_model(model, "CPU", settings(1))(image.numpy()).values())
    if int(found[0].argmax()) != exported:
        return "unknown", 0, float("inf")
    names = {layer: name for name, layer in binary_layers(network)}
    for (layer, (_, bit)), x in zip(steps.compared.items(), found[1:], strict=True):  # in the order of computation
        value = values[names[layer]]
        above = torch.from_numpy(x) > bit.threshold.float()[:, None, None]
        parted = (above != bit.inverted[:, None, None]) != (value > 0)
        if parted.any():
            return names[layer], int(parted.sum()), value[parted].abs().max().item()
    return "classifier", 0, (logits.max() - logits[exported]).item()

"""A trained network as an OpenVINO model: bits in, XNOR and popcount, one bit a weight in the file."""

from typing import Any

import numpy as np
import openvino as ov
import torch
from openvino import opset1, opset13
from torch import Tensor, nn
from torch.nn import functional as F

from trained_binarization.binarization.layers import BinaryConv2d
from trained_binarization.deploy.fold import Affine, Threshold, signs
from trained_binarization.deploy.program import PROGRAMS

CHANNELS = 32
"""OpenVINO's packed convolution gives wrong sums where the input channels are no multiple of this: they are padded."""


def _channels(values: Tensor) -> Any:
    return opset13.constant(values.to(torch.float32).numpy().reshape(1, -1, 1, 1))


class OpenVINO:
    """The steps of a program as nodes of a graph.

    `compared`: by binary layer, the node whose values its bits come from by comparison, and the comparison.
    """

    def __init__(self) -> None:
        self.compared: dict[BinaryConv2d, tuple[Any, Threshold]] = {}
        self._of_bits: dict[int, tuple[Any, Threshold]] = {}

    def convolution(self, x: Any, layer: nn.Conv2d) -> Any:
        """A float convolution without bias."""
        stride, padding = list(layer.stride), [int(p) for p in layer.padding]
        return opset13.convolution(x, layer.weight.detach().numpy(), stride, padding, padding, [1, 1])

    def sums(self, bits: Any, layer: BinaryConv2d) -> Any:
        """The sums of a layer; float32 in type, whole in value."""
        self.compared[layer] = self._of_bits[id(bits)]
        weight = signs(layer)
        added = -weight.shape[1] % CHANNELS
        weight = F.pad(weight, (0, 0, 0, 0, 0, added), value=1)
        packed = np.packbits((weight.numpy() > 0).reshape(-1), bitorder="little")
        # A copy of its own: a constant that borrows the array's memory outlives it.
        filters = ov.op.Constant(ov.Tensor(packed, list(weight.shape), ov.Type.u1), shared_memory=False)
        stride, padding = list(layer.stride), [int(p) for p in layer.padding]
        sums = opset1.binary_convolution(bits, filters, stride, padding, padding, [1, 1], "xnor-popcount", -1.0)
        # An added channel has the bit 0 everywhere, its padding too: u = -1 times each of the kernel's ones.
        return opset13.add(sums, np.float32(added * weight[0, 0].numel())) if added else sums

    def bits(self, x: Any, bit: Threshold) -> Any:
        """A FakeQuantize of two levels, {0, 1}: the CPU plugin packs it to bits."""
        added = -len(bit.threshold) % CHANNELS
        padded = opset13.pad(x, [0, 0, 0, 0], [0, added, 0, 0], "constant", np.float32(0)) if added else x
        threshold = F.pad(bit.threshold, (0, added), value=torch.inf)  # of added channels: the bit is 0
        inverted = F.pad(bit.inverted, (0, added), value=False)
        low, high = _channels(inverted.double()), _channels((~inverted).double())
        least = most = _channels(threshold)
        if padded.get_type_name() == "BinaryConvolution":
            # A constant of its own lets the CPU plugin compare inside the convolution. Behind a sum of two convolutions
            # it would do so, too, and its bits would be wrong (2026.4); there one constant keeps it from that.
            most = _channels(threshold)
        bits = opset13.fake_quantize(padded, least, most, low, high, 2)
        self._of_bits[id(bits)] = (x, bit)
        return bits

    def affine(self, x: Any, value: Affine) -> Any:
        """scale * x + shift."""
        return opset13.add(opset13.multiply(x, _channels(value.scale)), _channels(value.shift))

    def max_pool(self, x: Any, size: int, stride: int, padding: int) -> Any:
        """Max-pooling."""
        return opset1.max_pool(x, [stride] * 2, [padding] * 2, [padding] * 2, [size] * 2)

    def add(self, x: Any, y: Any) -> Any:
        """x + y."""
        return opset13.add(x, y)

    def relu(self, x: Any) -> Any:
        """max(x, 0)."""
        return opset13.relu(x)

    def mean(self, x: Any) -> Any:
        """Over all places."""
        return opset13.reduce_mean(x, np.array([2, 3]), keep_dims=True)

    def classify(self, x: Any, layer: nn.Linear) -> Any:
        """Logits; flattened channels last, as x lies in memory, and the weights with it."""
        weight = layer.weight.detach().reshape(-1, *list(x.shape)[1:]).permute(0, 2, 3, 1).flatten(1)
        x = opset13.reshape(opset13.transpose(x, np.array([0, 2, 3, 1])), np.array([0, -1]), special_zero=True)
        product = opset13.matmul(x, weight.contiguous().numpy(), False, True)
        return opset13.add(product, layer.bias.detach().numpy().reshape(1, -1))


def normalised(images: Any, mean: Tensor, std: Tensor) -> Any:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W); transposed last, when the plugin need move nothing for it."""
    middle, spread = (values.to(torch.float32).reshape(1, 1, 1, -1).numpy() for values in (mean, std))
    x = opset13.divide(opset13.subtract(opset13.convert(images, "f32"), middle), spread)
    return opset13.transpose(x, np.array([0, 3, 1, 2]))


def export_network(network: nn.Module, mean: Tensor, std: Tensor, image_size: int) -> ov.Model:
    """A network in evaluation, from uint8 images (N, S, S, 3) to logits; N is 1 until the model is reshaped."""
    images = opset13.parameter([1, image_size, image_size, 3], np.uint8, name="images")
    logits = PROGRAMS[type(network)](network, normalised(images, mean, std), OpenVINO())
    logits.output(0).set_names({"logits"})
    model = ov.Model([logits], [images], type(network).__name__)
    for number, node in enumerate(model.get_ordered_ops()):  # else numbered over the process: no two files were equal
        node.set_friendly_name(f"{node.get_type_name()}_{number}")
    return model

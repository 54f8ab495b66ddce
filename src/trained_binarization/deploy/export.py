"""A trained network as an OpenVINO model: bits in, XNOR and popcount, one bit a weight in the file."""

from typing import Any

import numpy as np
import openvino as ov
import torch
from openvino import opset1, opset13
from torch import Tensor, nn

from trained_binarization.binarization.layers import BinaryConv2d
from trained_binarization.deploy.fold import Affine, Threshold, signs
from trained_binarization.deploy.program import PROGRAMS
from trained_binarization.errors import NotRun

CHANNELS = 32
"""OpenVINO's packed convolution gives wrong sums where the input channels are no multiple of this: refused by name."""


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
        """The sums of a layer; float32 in type, whole in value. NotRun where OpenVINO would compute others."""
        if id(bits) in self._of_bits:  # else they are a parameter of the graph
            self.compared[layer] = self._of_bits[id(bits)]
        weight = signs(layer)
        if weight.shape[1] % CHANNELS:
            raise NotRun(
                f"input channels: found {weight.shape[1]}; allowed: multiples of {CHANNELS}, "
                "since OpenVINO's packed convolution is wrong for others"
            )
        packed = np.packbits((weight.numpy() > 0).reshape(-1), bitorder="little")
        # A copy of its own: a constant that borrows the array's memory outlives it.
        filters = ov.op.Constant(ov.Tensor(packed, list(weight.shape), ov.Type.u1), shared_memory=False)
        stride, padding = [layer.stride] * 2, [layer.padding] * 2
        return opset1.binary_convolution(bits, filters, stride, padding, padding, [1, 1], "xnor-popcount", -1.0)

    def bits(self, x: Any, bit: Threshold) -> Any:
        """A FakeQuantize of two levels, {0, 1}: the CPU plugin packs it to bits."""
        threshold = _channels(bit.threshold)
        low, high = _channels(bit.inverted.double()), _channels((~bit.inverted).double())
        bits = opset13.fake_quantize(x, threshold, threshold, low, high, 2)
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
        """Logits."""
        x = opset13.reshape(x, np.array([0, -1]), special_zero=True)
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        return opset13.add(opset13.matmul(x, weight, False, True), bias.reshape(1, -1))


def normalised(images: Any, mean: Tensor, std: Tensor) -> Any:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W)."""
    x = opset13.transpose(opset13.convert(images, "f32"), np.array([0, 3, 1, 2]))
    return opset13.divide(opset13.subtract(x, _channels(mean)), _channels(std))


def export_network(network: nn.Module, mean: Tensor, std: Tensor, image_size: int) -> ov.Model:
    """A network in evaluation, from uint8 images (N, S, S, 3) to logits; N is 1 until the model is reshaped."""
    images = opset13.parameter([1, image_size, image_size, 3], np.uint8, name="images")
    logits = PROGRAMS[type(network)](network, normalised(images, mean, std), OpenVINO())
    logits.output(0).set_names({"logits"})
    model = ov.Model([logits], [images], type(network).__name__)
    for number, node in enumerate(model.get_ordered_ops()):  # else numbered over the process: no two files were equal
        node.set_friendly_name(f"{node.get_type_name()}_{number}")
    return model

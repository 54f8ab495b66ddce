"""VGG-Small as an OpenVINO model: bits in, XNOR and popcount, one bit a weight in the file."""

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
import torch
from openvino import opset1, opset13
from torch import Tensor, nn

from trained_binarization.binarization.layers import BinaryConv2d
from trained_binarization.deploy.fold import Affine, Threshold, batch_norm, behind, of_sums, positive, signs
from trained_binarization.errors import UserError
from trained_binarization.networks.vgg_small import VGGSmall

CHANNELS = 32
"""OpenVINO's packed convolution gives wrong sums where the input channels are no multiple of this: refused by name."""


def _channels(values: Tensor) -> Any:
    return opset13.constant(values.to(torch.float32).numpy().reshape(1, -1, 1, 1))


def binarize(x: Any, bit: Threshold) -> Any:
    """Bits {0, 1} of a node (N, C, H, W): a FakeQuantize of two levels, which the CPU plugin packs."""
    threshold = _channels(bit.threshold)
    low, high = _channels(bit.inverted.double()), _channels((~bit.inverted).double())
    return opset13.fake_quantize(x, threshold, threshold, low, high, 2)


def binary_convolution(bits: Any, layer: BinaryConv2d) -> Any:
    """The sums S of a layer; float32 in type, whole in value. UserError where OpenVINO would compute others."""
    weight = signs(layer)
    if weight.shape[1] % CHANNELS:
        raise UserError(
            f"export: input channels: found {weight.shape[1]}; allowed: multiples of {CHANNELS}, "
            "since OpenVINO's packed convolution is wrong for others"
        )
    packed = np.packbits((weight.numpy() > 0).reshape(-1), bitorder="little")
    filters = ov.op.Constant(ov.Tensor(packed, list(weight.shape), ov.Type.u1), shared_memory=False)
    stride, padding = [layer.stride] * 2, [layer.padding] * 2
    return opset1.binary_convolution(bits, filters, stride, padding, padding, [1, 1], "xnor-popcount", -1.0)


def convolution(x: Any, layer: nn.Conv2d) -> Any:
    """A float convolution without bias."""
    stride, padding = list(layer.stride), [int(p) for p in layer.padding]
    return opset13.convolution(x, layer.weight.detach().numpy(), stride, padding, padding, [1, 1])


def affine(x: Any, value: Affine) -> Any:
    """scale * x + shift."""
    return opset13.add(opset13.multiply(x, _channels(value.scale)), _channels(value.shift))


def max_pool(x: Any) -> Any:
    """2x2, stride 2."""
    return opset1.max_pool(x, [2, 2], [0, 0], [0, 0], [2, 2])


def normalised(images: Any, mean: Tensor, std: Tensor) -> Any:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W)."""
    x = opset13.transpose(opset13.convert(images, "f32"), np.array([0, 3, 1, 2]))
    return opset13.divide(opset13.subtract(x, _channels(mean)), _channels(std))


def export_vgg_small(network: VGGSmall, mean: Tensor, std: Tensor, image_size: int) -> ov.Model:
    """The network from uint8 images (N, S, S, 3) to logits (N, classes); N is 1 until the model is reshaped."""
    images = opset13.parameter([1, image_size, image_size, 3], np.uint8, name="images")
    x = convolution(normalised(images, mean, std), network.conv1)
    inner, whole = None, False
    norm = network.bn1
    for number in range(2, 7):
        layer = getattr(network, f"conv{number}")
        folded = batch_norm(norm)
        bit = positive(behind(folded, inner) if inner else folded, whole)
        x = binary_convolution(binarize(x, bit), layer)
        x = max_pool(x) if number % 2 == 0 else x
        inner, whole, norm = of_sums(layer), True, getattr(network, f"bn{number}")
    assert inner is not None
    x = opset13.relu(affine(x, behind(batch_norm(norm), inner)))
    x = opset13.reshape(x, np.array([0, -1]), special_zero=True)
    weight, bias = network.classifier.weight.detach().numpy(), network.classifier.bias.detach().numpy()
    logits = opset13.add(opset13.matmul(x, weight, False, True), bias.reshape(1, -1))
    logits.output(0).set_names({"logits"})
    model = ov.Model([logits], [images], "vgg_small")
    for number, node in enumerate(model.get_ordered_ops()):  # else numbered over the process: no two files were equal
        node.set_friendly_name(f"{node.get_type_name()}_{number}")
    return model


EXPORTERS: dict[str, Callable[..., ov.Model]] = {"vgg_small": export_vgg_small}
"""By the network's name."""

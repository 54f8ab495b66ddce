"""torchvision's ResNet-18 (IMAGENET1K_V1) as the start of ours: `pretrain: {from: torchvision}`.

torchvision's order is convolution > BN > ReLU, with a ReLU after the sum; ours is BN > Q > convolution, and nothing
after the sum. So the weights are an initialisation and no equal network: see `mapped`.
"""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from trained_binarization.errors import UserError
from trained_binarization.files import sha256

if TYPE_CHECKING:
    from trained_binarization.datasets import TrainedOn

BLOCKS = [f"layer{layer}.{block}" for layer in range(1, 5) for block in range(2)]
"""torchvision's names of the blocks that ours number from 0 to 7."""

SHA256 = "f37072fd"
"""The first digits, as the file's name has them."""

CALIBRATION = 100
"""Batches from which BatchNorm's statistics are estimated again."""


def convolutions() -> dict[str, str]:
    """torchvision's names of what has the same place in both orders, to ours: all but most BatchNorms."""
    names = {"conv1": "conv1", "fc": "classifier"}
    for number, block in enumerate(BLOCKS):
        names |= {f"{block}.conv{i}": f"blocks.{number}.conv{i}" for i in (1, 2)}
        if number in (2, 4, 6):
            names[f"{block}.downsample.0"] = f"blocks.{number}.downsample"
            names[f"{block}.downsample.1"] = f"blocks.{number}.downsample_bn"
    return names


def norms() -> dict[str, str]:
    """torchvision's names of the other BatchNorms, to those of ours that come next on the way."""
    names = {"bn1": "blocks.0.bn1"}
    for number, block in enumerate(BLOCKS):
        names[f"{block}.bn1"] = f"blocks.{number}.bn2"
        names[f"{block}.bn2"] = f"blocks.{number + 1}.bn1" if number + 1 < len(BLOCKS) else "bn"
    return names


def mapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's state under our names. Our reading:

    A BatchNorm goes to the one of ours that comes next. Where that is behind the sum (bn2), its scale goes into the
    convolution before it as well, so that the branch enters the sum as strong as it was trained to.
    """
    names = convolutions() | norms()
    ours = {}
    for key, tensor in state.items():
        module, _, leaf = key.rpartition(".")
        ours[f"{names[module]}.{leaf}"] = tensor.clone()
    for number, block in enumerate(BLOCKS):
        scale = state[f"{block}.bn2.weight"] / (state[f"{block}.bn2.running_var"] + 1e-5).sqrt()
        ours[f"blocks.{number}.conv2.weight"] *= scale[:, None, None, None]
    return ours


def fetch() -> dict[str, Tensor]:
    """torchvision's published weights, from its cache or the network, checked by their hash."""
    from torchvision.models import ResNet18_Weights

    url = ResNet18_Weights.IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except OSError as error:
            raise UserError(
                f"{url}: cannot be fetched: {error}; allowed: the file as {path}, put there by hand"
            ) from None
    if not (found := sha256(path)).startswith(SHA256):
        raise UserError(f"{path}: SHA-256: found {found[:8]}; allowed: {SHA256}, that of the file at {url}")
    state: dict[str, Tensor] = torch.load(path, weights_only=True)
    return state


@torch.no_grad()
def estimate_statistics(network: nn.Module, images: "TrainedOn", batch_size: int) -> None:
    """Set every BatchNorm's running statistics to their mean over training batches (as many for every seed)."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the cumulative mean
    network.train()
    for batch in islice(images.batches(0, 0, batch_size, 0, slice(None)), CALIBRATION):
        network(images.load(*batch)[0])
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum

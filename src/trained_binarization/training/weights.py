"""Weights on the disk: a run's own, and a binary network reduced to what it computes with."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from trained_binarization.binarization.layers import binary_layers
from trained_binarization.errors import UserError
from trained_binarization.files import written_whole

SIGNS = "signs.safetensors"
"""The same network with int8 signs for latent weights: small enough for git, enough to evaluate, not to train on."""


def save_weights(network: nn.Module, path: Path, *, signs: bool = False) -> None:
    """Write a network's state; with `signs`, latent weights are replaced by their signs in {-1, +1}, int8."""
    state: dict[str, Tensor] = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    if signs:
        for name, layer in binary_layers(network):
            if layer.method.weight_scaling == "analytic":
                raise UserError(
                    f"{path}: weight_scaling: found 'analytic'; allowed: 'trained' or 'none', to keep signs"
                )
            state[f"{name}.weight"] = torch.where(state[f"{name}.weight"] >= 0, 1, -1).to(torch.int8)
    with written_whole(path) as partial:
        partial.write_bytes(save(state))


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a file of either kind; scaling factors that it does not have keep their start. UserError if it misfits."""
    try:
        missing, unexpected = network.load_state_dict(load_file(path), strict=False)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(f"{path}: found weights that do not fit ({reason}); allowed: this network's") from None
    wrong = [name for name in missing if not name.endswith("alpha")] + list(unexpected)
    if wrong:
        raise UserError(f"{path}: found weights of another network ({wrong[0]}); allowed: this network's")

"""Weights on the disk: a run's own, and a binary network reduced to what it computes with."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from trained_binarization.binarization.layers import binary_layers
from trained_binarization.errors import UserError
from trained_binarization.files import written_whole

SIGNS = "signs.safetensors"
"""The same network with one bit for each latent weight: small enough for git, enough to evaluate, not to train on."""

PACKED = "packed_signs"
"""The key of a file's metadata that names the packed tensors with their shapes, as JSON."""


def signs_of(network: nn.Module) -> dict[str, Tensor]:
    """A binary network's state on the CPU, latent weights replaced by their signs in {-1, +1}, int8."""
    state = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    for name, _ in binary_layers(network):
        state[f"{name}.weight"] = torch.where(state[f"{name}.weight"] >= 0, 1, -1).to(torch.int8)
    return state


def state_sha256(state: dict[str, Tensor]) -> str:
    """SHA-256 over the tensors by name: each one's name, type, shape and bytes, however a file packs them."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_weights(network: nn.Module, path: Path, *, signs: bool = False) -> None:
    """Write a network's state; with `signs`, latent weights are replaced by their signs, a bit each (1 is +1)."""
    if signs and any(layer.method.weight_scaling == "analytic" for _, layer in binary_layers(network)):
        raise UserError(f"{path}: weight_scaling: found 'analytic'; signs are kept of any other scaling")
    state = signs_of(network) if signs else {k: v.cpu().contiguous() for k, v in network.state_dict().items()}
    shapes = {name: list(tensor.shape) for name, tensor in state.items() if tensor.dtype == torch.int8}
    for name in shapes:
        state[name] = torch.from_numpy(np.packbits(state[name].numpy().reshape(-1) > 0))
    with written_whole(path) as partial:
        partial.write_bytes(save(state, metadata={PACKED: json.dumps(shapes)} if shapes else None))


def load_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, packed signs as int8 in {-1, +1}; UserError where it is damaged."""
    try:
        state = load_file(path)
        with safe_open(path, "pt") as file:
            shapes: dict[str, list[int]] = json.loads((file.metadata() or {}).get(PACKED, "{}"))
        for name, shape in shapes.items():
            bits = np.unpackbits(state[name].numpy())[: int(np.prod(shape))]
            state[name] = torch.from_numpy(bits.astype(np.int8) * 2 - 1).reshape(shape)
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: found damaged content ({' '.join(str(error).split())})") from None
    return state


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a file of either kind; scaling factors that it does not have keep their start. UserError if it misfits."""
    state = load_state(path)
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(f"{path}: found weights that do not fit ({reason}); allowed: this network's") from None
    if bad := next((name for name, tensor in state.items() if not tensor.isfinite().all()), None):
        raise UserError(f"{path}: {bad}: found a value that is not finite; train the run again")
    wrong = [name for name in missing if not name.endswith("alpha")] + list(unexpected)
    if wrong:
        raise UserError(f"{path}: found weights of another network ({wrong[0]}); allowed: this network's")

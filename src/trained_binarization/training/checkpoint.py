"""Checkpoints: written whole or not at all, named by their own SHA-256, the one before kept until the next is safe.

safetensors with the progress as JSON in its header, so nothing that is loaded can run code.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from trained_binarization.errors import UserError
from trained_binarization.files import sha256, written_whole

FOLDER = "checkpoints"
KEPT = 2


def _all(folder: Path) -> list[Path]:
    """The folder's checkpoints, newest first."""
    return sorted((folder / FOLDER).glob("step*-*.safetensors"), reverse=True)


def save_checkpoint(folder: Path, step: int, tensors: dict[str, Tensor], progress: dict[str, Any]) -> Path:
    """Write the checkpoint of a run's folder at a global step; older ones but one are removed after it is safe."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(tensors, metadata={"progress": json.dumps(progress)})
    digest = hashlib.sha256(content).hexdigest()
    path = folder / FOLDER / f"step{step:09d}-{digest[:16]}.safetensors"
    with written_whole(path) as partial:
        partial.write_bytes(content)
    for old in _all(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """(tensors, progress) of the newest whole checkpoint; a damaged one is told, and the one before it used.

    What a kill left half written is removed.
    """
    for partial in (folder / FOLDER).glob(".*.partial"):
        partial.unlink(missing_ok=True)
    for path in _all(folder):
        try:
            if sha256(path)[:16] != path.stem.split("-")[1]:
                raise ValueError("its SHA-256 is not the one in its name")
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return tensors, json.loads(file.metadata()["progress"])
        except (OSError, UserError, ValueError, SafetensorError) as error:
            print(f"{path}: damaged, not used, removed: {error}", flush=True)
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return None


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a run that is finished, or of other settings."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)

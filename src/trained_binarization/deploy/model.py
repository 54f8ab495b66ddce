"""Exported models on the disk: an OpenVINO model, .xml with .bin beside it, that says itself what it is."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import openvino as ov

from trained_binarization import files
from trained_binarization.errors import UserError
from trained_binarization.evidence.measured import Deployed
from trained_binarization.files import written_whole

BATCH = 250
"""Images scored at a time."""


@dataclass(frozen=True)
class About:
    """What a model's file says of it; `accuracy` in percent is its record's.

    `resize`: the short side that images are brought to before their centre is cut out; 0 where they are scaled whole.
    """

    study: str
    run: str
    classes: tuple[str, ...]
    image_size: int
    data_checksum: str
    weights_sha256: str
    accuracy: float
    resize: int = 0


def save_model(model: ov.Model, about: About, path: Path) -> dict[str, str]:
    """Write PATH.xml and PATH.bin; returns their SHA-256 by name."""
    for key, value in asdict(about).items():
        text = "\n".join(value) if isinstance(value, tuple) else str(value)
        model.set_rt_info(text, ["trained_binarization", key])
    found = {}
    with TemporaryDirectory() as folder:
        # Float constants stay float32: as float16 the thresholds would move.
        ov.serialize(model, f"{folder}/model.xml", f"{folder}/model.bin")
        for suffix in (".bin", ".xml"):
            content = Path(folder, f"model{suffix}").read_bytes()
            with written_whole(path.with_name(f"{path.name}{suffix}")) as partial:
                partial.write_bytes(content)
            found[f"{path.name}{suffix}"] = hashlib.sha256(content).hexdigest()
    return found


@dataclass
class ExportedModel:
    """A model that was read, and what it says of itself."""

    model: ov.Model
    about: About

    def compiled(self, batch: int, threads: int) -> ov.CompiledModel:
        """For a fixed number of images, on the CPU, float32 where there are floats."""
        model = self.model.clone()
        model.reshape([batch, self.about.image_size, self.about.image_size, 3])
        return ov.Core().compile_model(model, "CPU", settings(threads))

    def logits(self, images: np.ndarray, threads: int) -> np.ndarray:
        """Logits (N, classes) of uint8 images (N, S, S, 3)."""
        parts = []
        compiled: dict[int, ov.CompiledModel] = {}
        for start in range(0, len(images), BATCH):
            part = np.ascontiguousarray(images[start : start + BATCH])
            if len(part) not in compiled:
                compiled[len(part)] = self.compiled(len(part), threads)
            parts.append(compiled[len(part)](part)[0].copy())
        return np.concatenate(parts)


def settings(threads: int) -> dict[str, Any]:
    """The CPU plugin's: as many threads, and float32 that is float32, not bfloat16."""
    return {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


def _as_proven(file: Path) -> None:
    """UserError where a proof beside the model's file is of another content."""
    proof = file.with_name("deploy.json")
    if proof.is_file():
        said = files.read_model(proof, Deployed, "restore it, or export the model again").files
        if file.name in said and files.sha256(file) != said[file.name]:
            raise UserError(
                f"{file}: its SHA-256 is not the one in {proof.name}; restore it, or export the model again"
            )


def read_model(path: Path) -> ExportedModel:
    """A model of ours; UserError where it is missing, damaged or somebody else's."""
    for file in (path, path.with_suffix(".bin")):
        if path.suffix != ".xml" or not file.is_file():
            raise UserError(f"{file}: no such model; allowed: an exported MODEL.xml with MODEL.bin beside it")
        _as_proven(file)
    try:
        model = ov.Core().read_model(path)
        places = {key: ["trained_binarization", key] for key in About.__annotations__}
        if not model.has_rt_info(places["resize"]):  # of before there were folders of images
            del places["resize"]
        texts = {key: model.get_rt_info(place).astype(str) for key, place in places.items()}
    except RuntimeError:
        raise UserError(f"{path}: found no model of ours; allowed: what `trained-binarization export` wrote") from None
    about = About(
        study=texts["study"],
        run=texts["run"],
        classes=tuple(texts["classes"].split("\n")),
        image_size=int(texts["image_size"]),
        data_checksum=texts["data_checksum"],
        weights_sha256=texts["weights_sha256"],
        accuracy=float(texts["accuracy"]),
        resize=int(texts.get("resize", 0)),
    )
    return ExportedModel(model, about)

"""What an exported model is for: scoring it, and classifying files with it."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torchvision.transforms import v2

from trained_binarization.datasets import open_dataset, pixels
from trained_binarization.datasets.decode import decode, read_file
from trained_binarization.deploy.model import read_model
from trained_binarization.errors import UserError
from trained_binarization.study import Study


def evaluate_model(path: Path, study: Study) -> tuple[float, float, int, str]:
    """(accuracy in percent, that of its record, images scored, which images) on all of the study's scored images."""
    exported = read_model(path)
    about = exported.about
    if about.study != study.study:
        raise UserError(f"{path}: found a model of study {about.study}; allowed: {study.study}'s, or other --params")
    data = open_dataset(study.dataset, about.run.split("/")[0])
    if about.data_checksum != data.checksum:
        raise UserError(
            f"{path}: data: found {about.data_checksum[:12]}; allowed: {data.checksum[:12]}, that of {data.name} here"
        )
    images, labels = pixels(data.scored(study.dataset.validation, torch.device("cpu")))
    predicted = torch.from_numpy(exported.logits(images.numpy(), study.compute.threads)).argmax(1)
    accuracy = 100 * (predicted == labels).double().mean().item()
    return accuracy, about.accuracy, len(labels), "validation" if study.dataset.validation else "test"


def classify(path: Path, images: Sequence[Path]) -> Iterator[tuple[Path, str, float, float]]:
    """(image, label, softmax confidence, milliseconds) of each file, brought to size as in evaluation; one thread."""
    exported = read_model(path)
    size, resize = exported.about.image_size, exported.about.resize
    sized = v2.Compose([v2.Resize(resize), v2.CenterCrop(size)]) if resize else v2.Resize((size, size))
    compiled = exported.compiled(1, 1)
    contents = [np.asarray(sized(decode(image, read_file(image)))) for image in images]
    compiled(np.zeros((1, size, size, 3), np.uint8))  # the first call prepares kernels
    for image, content in zip(images, contents, strict=True):
        began = time.perf_counter()
        logits = compiled(content[None])[0][0]
        milliseconds = 1e3 * (time.perf_counter() - began)
        confidence = torch.from_numpy(logits.copy()).double().softmax(0)
        best = int(confidence.argmax())
        yield image, exported.about.classes[best], confidence[best].item(), milliseconds

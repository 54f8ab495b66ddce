"""A small folder of images in ImageNet's layout, made of scikit-learn's digits, and a study of it."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from helpers import Settings, small_settings
from trained_binarization.datasets.digits import read_digits
from trained_binarization.study import ImageFolder, Study

COUNTS = {"train": 24, "val": 8}


def write_folder(root: Path, classes: int = 3) -> Path:
    """{train,val}/n0<digit>/<number>.JPEG: photographs of digits in several sizes and shapes."""
    digits = read_digits()
    for digit in range(classes):
        images = digits.train_images[digits.train_labels == digit].permute(0, 3, 1, 2)
        first = 0
        for part, count in COUNTS.items():
            folder = root / part / f"n0{digit}"
            folder.mkdir(parents=True)
            for number, image in enumerate(images[first : first + count]):
                larger = image.repeat_interleave(3 + number % 3, 1).repeat_interleave(3 + number % 2, 2)
                Image.fromarray(larger.permute(1, 2, 0).numpy()).save(folder / f"{number}.JPEG", quality=95)
            first += count
    return root


def folder_settings(root: Path, /, **changes: Any) -> Settings:
    """The small study on such a folder, ResNet-18 at a sixteenth of its width."""
    settings = small_settings(
        study="photographs",
        networks=["resnet18"],
        pretrain={"batch_size": 8, "epochs": 2},
        finetune={"batch_size": 8, "learning_rate": 1e-3},
    )
    settings["architecture"] = {"resnet18": {"width": 0.0625, "binary_downsample": False}}
    settings["ablations"], settings["variants"] = [], {}
    settings["dataset"] = {
        "name": "imagenette",
        "root": str(root),
        "cache": str(root.parent / "cache"),
        "workers": 0,
        "decoder": "pillow",
        "validation": 0,
        "copy_side": None,
        "image_size": {"resnet18": 32},
        "resize": 40,
        "least_area": 0.35,
        "flip": True,
    } | changes
    return settings


def folder_dataset(root: Path, /, **changes: Any) -> ImageFolder:
    """The data set of `folder_settings`, validated."""
    dataset = Study.model_validate(folder_settings(root, **changes)).dataset
    assert isinstance(dataset, ImageFolder)
    return dataset


def all_batches(images: Any, size: int, seed: int = 0, epoch: int = 0, first: int = 0) -> list[torch.Tensor]:
    """The pixels of an epoch's batches."""
    return [pixels for pixels, _ in images.batches(seed, epoch, size, first, slice(None))]

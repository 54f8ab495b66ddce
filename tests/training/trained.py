"""What the tests of training share: small runs and their records, a trainer of a narrow network."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helpers import small_settings, small_study
from trained_binarization.binarization.layers import binary_layers
from trained_binarization.binarization.method import Method
from trained_binarization.datasets.augment import Augmentation
from trained_binarization.datasets.digits import read_digits
from trained_binarization.datasets.images import Resident, ResidentScored
from trained_binarization.networks.vgg_small import VGGSmall
from trained_binarization.records import run_folder
from trained_binarization.study import FULL_PRECISION, METHOD, Compute, Finetuning, Pretraining, Run
from trained_binarization.training.distributed import ALONE, World
from trained_binarization.training.loop import Trainer
from trained_binarization.training.progress import Progress
from trained_binarization.training.runs import train_run

PARENT = Run(network="vgg_small", variant=FULL_PRECISION, seed=0)
CHILD = Run(network="vgg_small", variant=METHOD, seed=0)


def folder_of(root: Path, run: Run = PARENT) -> Path:
    return run_folder(root / "results", small_study(), run)


def record_of(root: Path, run: Run = PARENT) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder_of(root, run) / "record.json").read_text(encoding="utf-8"))
    return content


def train(root: Path, run: Run = PARENT, **changes: Any) -> Any:
    return train_run(small_study(**changes), run, root / "results")


def distilled(one: Trainer, share: float, temperature: float) -> Trainer:
    """The trainer, learning from a full-precision network of random weights."""
    torch.manual_seed(5)
    dtype = next(one.network.parameters()).dtype
    one.teacher = VGGSmall(None, width=0.125, image_size=16).eval().to(dtype)
    changes = {"distillation": {"share": share, "temperature": temperature}}
    one.training = Finetuning.model_validate(one.training.model_dump() | changes)
    return one


class InDouble(Augmentation):
    """Batches in float64."""

    def batch(self, choices: Tensor) -> Tensor:
        return super().batch(choices).double()


def trainer(method: Method | None, count: int, double: bool = False, world: World = ALONE, **compute: Any) -> Trainer:
    """A trainer of a narrow VGG-Small on the first digits, by the quick study's recipe."""
    settings, digits = small_settings(), read_digits()
    stage = settings["finetune"] if method else settings["pretrain"]
    training = (Finetuning if method else Pretraining).model_validate(stage | {"batch_size": 32, "epochs": 2})
    torch.manual_seed(0)
    network = VGGSmall(method, width=0.125, image_size=16)
    for _, layer in binary_layers(network):
        layer.initialize_from_weight()
    augmentation = (InDouble if double else Augmentation)(digits.train_images[:count], padding=1, flip=False)
    return Trainer(
        network=network.double() if double else network,
        training=training,
        compute=Compute.model_validate(settings["compute"] | compute),
        seed=0,
        images=Resident(augmentation, digits.train_labels[:count]),
        scored=ResidentScored(digits.test_images, digits.test_labels),
        progress=Progress("test", 2, 32),
        world=world,
    )

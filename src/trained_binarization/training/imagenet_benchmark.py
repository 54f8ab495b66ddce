"""What ImageNet costs here: the loader beside the stock way of loading, and a training step of each network."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from trained_binarization.datasets import dali
from trained_binarization.datasets.augment import normalise
from trained_binarization.datasets.folder import MEAN, STD, FolderImages, read_folder
from trained_binarization.datasets.images import ResidentScored
from trained_binarization.errors import UserError
from trained_binarization.networks.summary import layer_costs
from trained_binarization.provenance import provenance
from trained_binarization.study import FULL_PRECISION, METHOD, ImageFolder, Run, Study
from trained_binarization.training.benchmark import refuse_distillation, spread
from trained_binarization.training.device import compiled, describe, set_up
from trained_binarization.training.graph import EAGER_CALLS
from trained_binarization.training.loop import Trainer
from trained_binarization.training.progress import Progress
from trained_binarization.training.runs import built

WARM_UP, STEPS = EAGER_CALLS + 2, 5
"""Steps that are not timed (they compile, and capture a GPU's graph), and that are; the median counts."""


def benchmark_imagenet(
    study: Study, root: Path, images: int, rounds: int, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Measure loading from `root` (any folder of images) and training on images in memory, at the study's sizes."""
    if not isinstance(study.dataset, ImageFolder):
        raise UserError(f"study {study.study}: dataset.name: found '{study.dataset.name}'; allowed: 'imagenet'")
    refuse_distillation(study)
    of_now = provenance()
    device = set_up(study.compute)
    name, driver = describe(device)
    with TemporaryDirectory() as cache:
        changes = {"name": "imagenette", "root": str(root), "cache": cache, "workers": study.compute.threads}
        changes["decoder"] = "pillow"
        loading = _loading(study, study.dataset.model_copy(update=changes), images, rounds, device, say)
    return {
        "study": study.study,
        "device": name,
        "driver": driver,
        "threads": torch.get_num_threads(),
        "compute": study.compute.model_dump(),
        "loading": loading,
        "training": [
            _training(study, Run(network=network, variant=variant, seed=0), device, say)
            for network in study.networks
            for variant in (FULL_PRECISION, METHOD)
        ],
        **of_now,
    }


def _loading(
    study: Study, dataset: ImageFolder, images: int, rounds: int, device: torch.device, say: Callable[[str], None]
) -> dict[str, Any]:
    """Normalised float32 batches from files: ours, torchvision's ImageFolder and transforms in a DataLoader, and DALI.

    The last only where it is installed, on the GPU if there is one; the others on the CPU.
    """
    size, batch = max(dataset.image_size.values()), study.pretrain.batch_size
    data = read_folder(dataset, size)
    if not batch <= images <= len(data.train):
        raise UserError(f"--images: found {images}; allowed: {batch} (a batch) to {len(data.train)}")

    def batches_of(way: FolderImages, device: torch.device) -> Callable[[], Iterator[Any]]:
        trained_on = way.trained_on(way.dataset, device)
        # As in a training's step.
        load = compiled(trained_on.load) if study.compute.compile else trained_on.load
        return lambda: (load(*one) for one in trained_on.batches(0, 0, batch, 0, slice(None)))

    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, (dataset.least_area, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([value / 255 for value in MEAN], [value / 255 for value in STD]),
        ]
    )
    folder = datasets.ImageFolder(str(Path(dataset.root, "train")), transform)
    loader = DataLoader(folder, batch, shuffle=True, drop_last=True, num_workers=dataset.workers)
    ways: dict[str, Callable[[], Iterator[Any]]] = {
        "stock": lambda: iter(loader),
        "ours": batches_of(data, torch.device("cpu")),
    }
    if dali.installed():
        ways["dali"] = batches_of(replace(data, dataset=dataset.model_copy(update={"decoder": "dali"})), device)
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, batches in ways.items():
            began = time.perf_counter()
            seen = sum(len(labels) for _, labels in islice(batches(), images // batch))
            if device.type == "cuda":
                torch.cuda.synchronize()
            speed = seen / (time.perf_counter() - began)
            say(f"loading: round {number} of {rounds}, {way}: {speed:.0f} images/s")
            if number:  # the first one compiles
                speeds[way].append(speed)
    ratios = {
        way: spread([fast / slow for fast, slow in zip(of_way, speeds["stock"], strict=True)])
        for way, of_way in speeds.items()
        if way != "stock"
    }
    return {
        "images": images,
        "rounds": rounds,
        "workers": dataset.workers,
        "size": size,
        "files": data.checksum,
        "bytes_an_image": sum(data.train.path(i).stat().st_size for i in range(len(data.train))) / len(data.train),
        "images_per_second": {way: spread(speed) for way, speed in speeds.items()},
        "times_stock": ratios,
    }


@dataclass(frozen=True)
class _OneBatch:
    """Images in memory, the same batch over and over: a step without the loader."""

    images: Tensor
    labels: Tensor
    statistics: tuple[Tensor, Tensor]

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def __len__(self) -> int:
        return len(self.labels)

    def load(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return normalise(images, *self.statistics), labels


def _training(study: Study, run: Run, device: torch.device, say: Callable[[str], None]) -> dict[str, Any]:
    assert isinstance(study.dataset, ImageFolder)
    size, training = study.dataset.image_size[run.network], study.training(run)
    torch.manual_seed(0)
    network = built(study, run.network, study.variant(run.variant), size, 1000)
    memory = torch.channels_last if study.compute.channels_last else torch.contiguous_format
    network.to(device=device, memory_format=memory)  # type: ignore[call-overload]
    images = torch.randint(256, (training.batch_size, size, size, 3), dtype=torch.uint8, device=device)
    labels = torch.randint(1000, (training.batch_size,), device=device)
    one = _OneBatch(images, labels, (torch.tensor(MEAN, device=device), torch.tensor(STD, device=device)))
    progress = Progress("benchmark", training.epochs, training.batch_size, bar=False)
    trainer = Trainer(network, training, study.compute, 0, one, ResidentScored(images, labels), progress)  # type: ignore[arg-type]
    seconds = []
    for _ in range(WARM_UP + STEPS):
        began = time.perf_counter()
        trainer.step((images, labels), 0).sum().item()  # .item() waits for the GPU
        seconds.append(time.perf_counter() - began)
    speeds = [training.batch_size / second for second in seconds[WARM_UP:]]
    rows = layer_costs(built(study, run.network, None, size, 1000), size)
    # Forward, and two products as large in backward, but none for the gradient of the images.
    macs = 3 * rows[-1]["macs"] - next(row["macs"] for row in rows if row["layer"] == "conv1")
    say(f"{run.network}, {run.variant}: {statistics.median(speeds):.1f} images/s")
    return {
        "network": run.network,
        "training": run.variant,
        "batch_size": training.batch_size,
        "images_per_second": spread(speeds),
        "flops_per_image": 2 * macs,
    }

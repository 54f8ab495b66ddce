"""Batches of image files, made by a loader's processes, and the random choices of each image in them."""

import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from trained_binarization.errors import UserError


class RandomCrop:
    """A random part of an image, scaled to size x size in one step, and flipped: torchvision's distribution."""

    def __init__(self, size: int, least_area: float, flip: bool) -> None:
        self.size, self.flip = size, flip
        self.crop = v2.RandomResizedCrop(size, (least_area, 1.0))

    def choose(self, image: Image.Image) -> tuple[tuple[int, int, int, int], bool]:
        """((left, top, width, height) of the part, whether it is flipped), by torch's generator."""
        chosen = self.crop.make_params([image])
        box = (chosen["left"], chosen["top"], chosen["width"], chosen["height"])
        return box, bool(self.flip and torch.rand(()) < 0.5)

    def __call__(self, image: Image.Image) -> Image.Image:
        """The part that is chosen, as it is trained on."""
        (left, top, width, height), flip = self.choose(image)
        box = (left, top, left + width, top + height)
        scaled = image.resize((self.size, self.size), Image.Resampling.BILINEAR, box)
        return scaled.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else scaled


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's generator at a seed, and as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would see to CUDA's as well, and takes its time
        yield


GRACE = 20
"""Seconds that a process goes on after SIGTERM: the training, which ends within 10, may still wait for its batch."""


def _leave_signals_to_the_training(_: int) -> None:
    # It saves, and ends its workers; they would die first where a cluster signals every process of a job. But not for
    # ever: a Python that exits with a loader still open sends them SIGTERM, too, and waits.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))


def loaded(
    images: Dataset[Any], batches: Sequence[np.ndarray], workers: int, device: torch.device
) -> Generator[tuple[Any, ...]]:
    """The tensors of each batch, on the device; `images` makes them of a batch's choices, int64 (2, B).

    Raises the UserError that it gives in their place: a process's exceptions would become text.
    """
    loader = DataLoader(
        images,
        batch_size=None,
        sampler=batches,  # what it yields goes to __getitem__; arrays, since tensors would share memory with processes
        num_workers=min(workers, len(batches)),
        pin_memory=device.type == "cuda",
        worker_init_fn=_leave_signals_to_the_training,
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield tuple(tensor.to(device, non_blocking=True) for tensor in batch)

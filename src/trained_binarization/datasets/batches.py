"""Batches of image files, made by a loader's processes, and the random choices of each image in them."""

import shutil
import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
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


SHARED_MEMORY = Path("/dev/shm")
"""Where processes of Linux hand each other tensors. A container has 64 MB there if it is not told otherwise."""

PREFETCH = 2
"""Batches that each process makes ahead."""


def check_shared_memory(workers: int, images: int, batch: int, side: int) -> None:
    """UserError where the batches that `workers` processes make ahead do not fit into the shared memory.

    `images`: how many are loaded in all; `batch`: at a time; `side`: of each, in pixels.
    """
    if not workers or not SHARED_MEMORY.is_dir():  # other systems share elsewhere
        return
    held = min(images, (PREFETCH * workers + 1) * batch)  # one batch is being trained on
    needed = held * (side * side * 3 + 8)  # a byte a channel, and the label
    found = shutil.disk_usage(SHARED_MEMORY)
    if found.total and needed > found.free:  # a total of 0: no limit
        allowed = f"at least {_megabytes(needed)} MB, for {held} images of {workers} processes at a time"
        raise _too_small(f"found {_megabytes(found.free)} MB free; allowed: {allowed}", needed)


def _megabytes(count: int) -> int:
    return -(-count // 2**20)


def _too_small(what: str, needed: int) -> UserError:
    size = f"{2 * _megabytes(needed)}m"
    return UserError(
        f"{SHARED_MEMORY}: {what}; start the container with --shm-size={size} or more, or set dataset.workers: 0"
    )


class _Shared(Dataset[Any]):
    """Batches in shared memory. Where there is no room for one, it is the UserError that says so.

    The loader would put them there in a thread of its own, which only prints what fails, and wait for ever.
    """

    def __init__(self, images: Dataset[Any]) -> None:
        self.images = images

    def __getitem__(self, choices: np.ndarray) -> tuple[Tensor, ...] | UserError:
        batch: tuple[Tensor, ...] | UserError = self.images[choices]
        worker = get_worker_info()
        if isinstance(batch, UserError) or worker is None:
            return batch
        try:
            return tuple(tensor.share_memory_() for tensor in batch)
        except (RuntimeError, OSError) as error:  # no space left, or too many open files
            size = sum(tensor.nbytes for tensor in batch)
            what = f"found no room for a batch of {_megabytes(size)} MB ({str(error).splitlines()[0]})"
            return _too_small(what, (PREFETCH * worker.num_workers + 1) * size)


def loaded(
    images: Dataset[Any], batches: Sequence[np.ndarray], workers: int, device: torch.device
) -> Generator[tuple[Any, ...]]:
    """The tensors of each batch, on the device; `images` makes them of a batch's choices, int64 (2, B).

    Raises the UserError that it gives in their place: a process's exceptions would become text.
    """
    workers = min(workers, len(batches))
    loader = DataLoader(
        _Shared(images),
        batch_size=None,
        sampler=batches,  # what it yields goes to __getitem__; arrays, since tensors would share memory with processes
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        pin_memory=device.type == "cuda",
        worker_init_fn=_leave_signals_to_the_training,
    )
    try:
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            yield tuple(tensor.to(device, non_blocking=True) for tensor in batch)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
            raise
        reason = " ".join(str(error).split())  # killed for want of memory, or not started for want of semaphores
        raise UserError(f"dataset.workers: found {workers}, which failed: {reason}; allowed: fewer, or 0") from None

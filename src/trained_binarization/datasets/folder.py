"""ImageNet and sets like it: image files as {train,val}/<class>/<file>, decoded and cropped while they are trained on.

Every random choice follows from (seed, epoch, place in the epoch): a training that goes on in the middle of an epoch,
and one with another number of workers, sees the same pixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms import v2

from trained_binarization.datasets import dali
from trained_binarization.datasets.augment import normalise
from trained_binarization.datasets.batches import RandomCrop, check_shared_memory, loaded, seeded
from trained_binarization.datasets.images import EVALUATION_BATCH, check_validation
from trained_binarization.datasets.index import Index, read_index
from trained_binarization.datasets.views import corners, mirrored
from trained_binarization.errors import UserError
from trained_binarization.study import Dataset, ImageFolder

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of ImageNet's training images by channel, in units of [0, 255], as the field has them."""

HELD_OUT_SEED = 20190925
"""Of the draw that holds training images out for tuning."""


class _Decoded(TorchDataset[Any]):
    """Batches of uint8 (B, S, S, 3) and labels, by the images' numbers and the seeds of their random choices."""

    def __init__(self, index: Index, transform: Callable[[Image.Image], Image.Image | np.ndarray]) -> None:
        self.index, self.transform = index, transform

    def _image(self, number: int, seed: int) -> Tensor:
        image = self.index.image(number)
        with seeded(seed):
            return torch.from_numpy(np.array(self.transform(image)))

    def __getitem__(self, choices: np.ndarray) -> tuple[Tensor, Tensor] | UserError:
        """A batch, or what is wrong with one of its files."""
        try:
            images = torch.stack([self._image(*column) for column in choices.T.tolist()])
        except UserError as error:
            return error
        return images, self.index.labels[choices[0]]


@dataclass(frozen=True)
class Streamed:
    """Images to train on: random crop of random size and shape, flip (Inception's augmentation, the field's)."""

    index: Index
    dataset: ImageFolder
    size: int
    statistics: tuple[Tensor, Tensor]  # mean and deviation of the channels, each float32 (3,), in units of [0, 255]

    @property
    def device(self) -> torch.device:
        """Where the batches are."""
        return self.statistics[0].device

    def __len__(self) -> int:
        return len(self.index)

    def batches(self, seed: int, epoch: int, size: int, first: int, part: slice) -> Iterator[tuple[Tensor, ...]]:
        """The epoch's batches from number `first` on; of each, the part that is this process's."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(self), generator=generator)
        choices = torch.stack([order, torch.randint(2**62, order.shape, generator=generator)])
        crop = RandomCrop(self.size, self.dataset.least_area, self.dataset.flip)
        whole = [choices[:, batch * size : (batch + 1) * size] for batch in range(first, len(self) // size)]
        shares = [batch[:, part].numpy() for batch in whole]
        if self.dataset.decoder == "dali":
            return dali.decoded(self.index, crop, shares, self.dataset.workers, self.device)
        share = len(range(size)[part])
        check_shared_memory(self.dataset.workers, len(shares) * share, share, self.size)
        return loaded(_Decoded(self.index, crop), shares, self.dataset.workers, self.device)

    def load(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(normalised images (B, 3, H, W), labels (B,)) of a batch; part of the compiled step."""
        return normalise(images, *self.statistics), labels


@dataclass(frozen=True)
class StreamedScored:
    """Images to score: short side to `resize`, then the centre."""

    index: Index
    dataset: ImageFolder
    size: int
    device: torch.device
    top5 = True

    def __len__(self) -> int:
        return len(self.index)

    def batches(self, size: int, first: int = 0, step: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, labels), up to `size` at a time: the batches with the numbers first, first + step, and so on."""
        centre = v2.Compose([v2.Resize(self.dataset.resize), v2.CenterCrop(self.size)])
        numbers = torch.arange(len(self))
        whole = torch.stack([numbers, torch.zeros_like(numbers)]).split(size, dim=1)[first::step]
        batches = [batch.numpy() for batch in whole]
        return loaded(_Decoded(self.index, centre), batches, self.dataset.workers, self.device)


@dataclass(frozen=True)
class StreamedViews(StreamedScored):
    """Every view of the images to score: short side to `resize`, then the centre and the four corners, and mirrored."""

    @property
    def count(self) -> int:
        """Views of one image."""
        return 10 if self.dataset.flip else 5

    def __len__(self) -> int:
        return self.count * len(self.index)

    def _views(self, image: Image.Image) -> np.ndarray:
        pixels = torch.from_numpy(np.array(v2.functional.resize(image, [self.dataset.resize])))
        views = corners(pixels[None], self.size)
        return torch.cat(mirrored(views) if self.dataset.flip else views).numpy()

    def batches(self, size: int, first: int = 0, step: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """(views, labels), `size` at a time: an image is decoded once for all of its views."""
        numbers = torch.arange(len(self.index))
        whole = torch.stack([numbers, torch.zeros_like(numbers)]).split(size // self.count, dim=1)[first::step]
        batches = [batch.numpy() for batch in whole]
        for images, labels in loaded(_Decoded(self.index, self._views), batches, self.dataset.workers, self.device):
            yield images.flatten(0, 1), labels.repeat_interleave(self.count)


@dataclass(frozen=True)
class FolderImages:
    """A folder that `prepare` has checked, for a network that sees images of `size` pixels."""

    dataset: ImageFolder
    size: int
    train: Index
    test: Index
    classes: tuple[str, ...]
    checksum: str

    @property
    def files(self) -> dict[str, str]:
        """None: the checksum is over the contents of all."""
        return {}

    @property
    def name(self) -> str:
        """As in the study."""
        return self.dataset.name

    @property
    def counts(self) -> tuple[int, int]:
        """(train images, val images)."""
        return len(self.train), len(self.test)

    def _split(self, validation: int) -> tuple[Index, Index]:
        check_validation(validation, len(self.train))
        if not validation:
            return self.train, self.test
        # By a draw: the files are sorted by class.
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(HELD_OUT_SEED))
        return self.train.some(order[:-validation]), self.train.some(order[-validation:])

    def statistics(self, _: int) -> tuple[Tensor, Tensor]:
        """(mean, deviation) of the channels by which images are normalised: the field's, of ImageNet."""
        return torch.tensor(MEAN), torch.tensor(STD)

    def trained_on(self, dataset: Dataset, device: torch.device) -> Streamed:
        """The images to train on."""
        if self.dataset.decoder == "dali":
            dali.check_installed()
        mean, std = self.statistics(dataset.validation)
        statistics = (mean.to(device), std.to(device))
        return Streamed(self._split(dataset.validation)[0], self.dataset, self.size, statistics)

    def scored(self, validation: int, device: torch.device) -> StreamedScored:
        """The images to score."""
        index = self._split(validation)[1]
        check_shared_memory(self.dataset.workers, len(index), EVALUATION_BATCH, self.size)
        return StreamedScored(index, self.dataset, self.size, device)

    def views(self, dataset: Dataset, device: torch.device) -> StreamedViews:
        """Every view of the images to score (datasets/views.py)."""
        return StreamedViews(self._split(dataset.validation)[1], self.dataset, self.size, device)


def read_folder(dataset: ImageFolder, size: int) -> FolderImages:
    """The folder as its index has it; one is made where there is none."""
    return FolderImages(dataset, size, *read_index(dataset))

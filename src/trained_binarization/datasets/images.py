"""Data sets whose images fit into memory, and what a training and an evaluation see of them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trained_binarization.datasets.augment import Augmentation, channel_statistics
from trained_binarization.datasets.views import shifted
from trained_binarization.errors import UserError
from trained_binarization.study import Dataset, SmallImages

EVALUATION_BATCH = 250
"""Images that are scored at a time. Between two batches an evaluation can be stopped."""


@dataclass(frozen=True)
class Resident:
    """Images to train on that lie on the device: a batch is its random choices, made into images in the step."""

    augmentation: Augmentation
    labels: Tensor

    @property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """(mean, deviation) of the channels, each float32 (3,), in units of [0, 255]."""
        return self.augmentation.mean, self.augmentation.std

    @property
    def device(self) -> torch.device:
        """Where the batches are."""
        return self.labels.device

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, seed: int, epoch: int, size: int, first: int, part: slice) -> Iterator[tuple[Tensor, ...]]:
        """The epoch's batches from number `first` on; of each, the part that is this process's."""
        choices = self.augmentation.draw(seed, epoch)
        for batch in range(first, len(self) // size):
            yield (choices[:, batch * size : (batch + 1) * size][:, part].contiguous(),)

    def load(self, choices: Tensor) -> tuple[Tensor, Tensor]:
        """(normalised images (B, 3, H, W), labels (B,)) of a batch; part of the compiled step."""
        return self.augmentation.batch(choices), self.labels[choices[0]]


@dataclass(frozen=True)
class ResidentScored:
    """Images to score that lie on the device: uint8 (N, H, W, 3), and labels (N,)."""

    images: Tensor
    labels: Tensor
    top5 = False

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int, first: int = 0, step: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, labels), up to `size` at a time: the batches with the numbers first, first + step, and so on."""
        for start in range(first * size, len(self), step * size):
            yield self.images[start : start + size], self.labels[start : start + size]


@dataclass(frozen=True)
class Images:
    """Train and test images, uint8 (N, H, W, 3), with labels, int64 (N,); the checksum names their every byte."""

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    checksum: str
    files: dict[str, str]
    classes: tuple[str, ...]

    @property
    def counts(self) -> tuple[int, int]:
        """(train images, test images)."""
        return len(self.train_labels), len(self.test_labels)

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return self.train_images.shape[1]

    def split(self, validation: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """((images, labels) to train on, (images, labels) to score).

        With validation > 0 the last that many training images are held out and scored, and the test set is not used.
        """
        check_validation(validation, len(self.train_labels))
        if not validation:
            return (self.train_images, self.train_labels), (self.test_images, self.test_labels)
        kept = len(self.train_labels) - validation
        train = (self.train_images[:kept], self.train_labels[:kept])
        return train, (self.train_images[kept:], self.train_labels[kept:])

    def statistics(self, validation: int) -> tuple[Tensor, Tensor]:
        """(mean, deviation) of the channels of what is trained on, by which images are normalised."""
        return channel_statistics(self.split(validation)[0][0])

    def trained_on(self, dataset: Dataset, device: torch.device) -> Resident:
        """The images to train on, on the device."""
        assert isinstance(dataset, SmallImages)
        images, labels = self.split(dataset.validation)[0]
        augmentation = Augmentation(images.to(device), dataset.padding, dataset.flip, dataset.cutout)
        return Resident(augmentation, labels.to(device))

    def scored(self, validation: int, device: torch.device) -> ResidentScored:
        """The images to score, on the device."""
        images, labels = self.split(validation)[1]
        return ResidentScored(images.to(device), labels.to(device))

    def views(self, dataset: Dataset, device: torch.device) -> ResidentScored:
        """Every view of the images to score (datasets/views.py), on the device."""
        assert isinstance(dataset, SmallImages)
        images, labels = self.split(dataset.validation)[1]
        views = shifted(images.to(device), dataset.padding, dataset.flip)
        return ResidentScored(torch.cat(views), labels.to(device).repeat(len(views)))


def check_validation(validation: int, count: int) -> None:
    """UserError where more images are held out than there are to train on."""
    if validation >= count:
        raise UserError(
            f"dataset.validation: found {validation}; allowed: 0 to {count - 1}, fewer than the training images"
        )

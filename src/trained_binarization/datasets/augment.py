"""Augmentation in batches, where the images lie: pad, random crop, horizontal flip, cutout.

All of an epoch's random choices are drawn at once, on the CPU, by a generator that is seeded with (seed, epoch). So
they are the same on every device, cost no synchronisation, and a training that goes on in the middle of an epoch
needs no random state but these two numbers.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


class Augmentation:
    """Training batches of a uint8 image tensor (N, H, W, 3), as normalised float32 (B, 3, H, W) on its device."""

    def __init__(self, images: Tensor, padding: int, flip: bool, cutout: int | None = None) -> None:
        self.padding, self.flip, self.cutout = padding, flip, cutout
        self.count = len(images)
        self.padded = F.pad(images, [0, 0, padding, padding, padding, padding])
        self.mean, self.std = channel_statistics(images)
        self.pixels = torch.arange(images.shape[1], device=images.device)

    def draw(self, seed: int, epoch: int) -> Tensor:
        """An epoch's random choices, int64 (4, N): order of the images, crop's top and left, flip (0 or 1).

        With cutout two more rows: the pixel at the square's centre, or below and right of it where its side is even.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(self.count, generator=generator)
        offsets = torch.randint(2 * self.padding + 1, (2, self.count), generator=generator)
        flip = torch.randint(2 if self.flip else 1, (self.count,), generator=generator)
        rows = [order, *offsets, flip]
        if self.cutout:
            rows += torch.randint(len(self.pixels), (2, self.count), generator=generator)
        return torch.stack(rows).to(self.padded.device)

    def batch(self, choices: Tensor) -> Tensor:
        """The normalised images of B columns of an epoch's choices."""
        index, top, left, flip = choices[:4]
        rows = top[:, None] + self.pixels
        columns = left[:, None] + torch.where(flip[:, None] > 0, self.pixels.flip(0), self.pixels)
        crops = self.padded[index[:, None, None], rows[:, :, None], columns[:, None, :]]
        images = normalise(crops, self.mean, self.std)
        if self.cutout:
            # DeVries & Taylor 2017: the square's centre is anywhere, so part of it may lie outside; blank is the mean.
            offsets = self.pixels - choices[4:, :, None] + self.cutout // 2  # (2, B, H): rows and columns
            inside = (offsets >= 0) & (offsets < self.cutout)
            images = images.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0.0)
        return images


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, each float32 (3,), of uint8 images (N, H, W, 3) in [0, 255]."""
    # From the histogram: exact, and no float copy of the whole set.
    values = torch.arange(256, dtype=torch.float64)
    statistics = []
    for channel in range(images.shape[3]):
        counts = torch.bincount(images[..., channel].flatten(), minlength=256).cpu().double()
        mean = (counts @ values) / counts.sum()
        statistics.append((mean, ((counts @ (values - mean) ** 2) / counts.sum()).sqrt()))
    mean, std = torch.tensor(statistics, dtype=torch.float32).T.to(images.device)
    return mean, std


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W), channels last in memory, zero mean and unit deviation."""
    return images.float().sub_(mean).div_(std).permute(0, 3, 1, 2)  # in place: eager, a third less to move

"""Fixed views of the scored images: less noise from the finite test set than one view has.

Each view is scored by itself, and the accuracies are averaged. Nothing is ensembled, so the mean is an accuracy of the
same network on slightly moved images: an estimand of its own, shown beside the plain accuracy.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

SHIFT = 2
"""Pixels by which a view is moved, where the training's padding allows that much."""


def shifted(images: Tensor, padding: int, flip: bool) -> list[Tensor]:
    """Views of uint8 images (B, H, W, 3): the centre and four shifts, and all of them mirrored where `flip`.

    The shift is 2 pixels, at most the training's `padding`; what moves in is black, as in training. Without padding
    and flip the only view is the image itself.
    """
    step = min(SHIFT, padding)
    height, width = images.shape[1:3]
    padded = F.pad(images, [0, 0, step, step, step, step])
    places = [(0, 0), (step, 0), (-step, 0), (0, step), (0, -step)] if step else [(0, 0)]
    views = [padded[:, step + y : step + y + height, step + x : step + x + width] for y, x in places]
    return mirrored(views) if flip else views


def corners(images: Tensor, size: int) -> list[Tensor]:
    """Five views of uint8 images (B, H, W, 3), each `size` pixels a side: the centre crop and the four corners."""
    down, right = images.shape[1] - size, images.shape[2] - size
    # Rounded as torchvision's CenterCrop does, so that the first view is the one that plain accuracy scores.
    places = [(round(down / 2), round(right / 2)), (0, 0), (0, right), (down, 0), (down, right)]
    return [images[:, y : y + size, x : x + size] for y, x in places]


def mirrored(views: list[Tensor]) -> list[Tensor]:
    """The views, and each of them mirrored."""
    return views + [torch.flip(view, [2]) for view in views]

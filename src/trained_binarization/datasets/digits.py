"""scikit-learn's handwritten digits as small colour images: real data that needs no network."""

import hashlib

import numpy as np
import torch
from sklearn.datasets import load_digits

from trained_binarization.datasets.images import Images
from trained_binarization.errors import UserError

SIZE = 16
"""Pixels a side: the original 8x8 doubled, so that three poolings leave 2x2."""

TEST_IMAGES = 500
SPLIT_SEED = 20190925
CHECKSUM = "ebfb56d9952a2e17bfeda410d5372f4bd34f45d265aef3d11de370a2b8447bc8"
"""SHA-256 over images and labels in the order of the split."""


def read_digits() -> Images:
    """1,297 train and 500 test images of 16x16, grey in three channels, split by a fixed seed."""
    digits = load_digits()
    grey = (digits.images * 255 / 16).round().astype(np.uint8)
    images = np.repeat(grey.repeat(SIZE // 8, axis=1).repeat(SIZE // 8, axis=2)[..., None], 3, axis=3)
    order = np.random.RandomState(SPLIT_SEED).permutation(len(images))
    images, labels = images[order], digits.target[order].astype(np.int64)
    checksum = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    if checksum != CHECKSUM:
        raise UserError(f"scikit-learn's digits: SHA-256: found {checksum}; allowed: {CHECKSUM}")
    return Images(
        name="digits",
        train_images=torch.from_numpy(images[TEST_IMAGES:]),
        train_labels=torch.from_numpy(labels[TEST_IMAGES:]),
        test_images=torch.from_numpy(images[:TEST_IMAGES]),
        test_labels=torch.from_numpy(labels[:TEST_IMAGES]),
        checksum=checksum,
        files={},
        classes=tuple(str(digit) for digit in range(10)),
    )

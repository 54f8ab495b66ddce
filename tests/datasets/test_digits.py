"""The embedded digits: pinned by checksum, split without overlap."""

import hashlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from trained_binarization.datasets import digits as module
from trained_binarization.datasets.digits import CHECKSUM, SIZE, read_digits
from trained_binarization.datasets.images import Images
from trained_binarization.errors import UserError


@pytest.fixture(scope="module")
def digits() -> Images:
    return read_digits()


def test_checksum_is_over_every_byte_in_order(digits: Images) -> None:
    images = torch.cat([digits.test_images, digits.train_images]).numpy()
    labels = torch.cat([digits.test_labels, digits.train_labels]).numpy()
    assert hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest() == CHECKSUM == digits.checksum


def test_shapes_and_types(digits: Images) -> None:
    assert digits.train_images.shape == (1297, SIZE, SIZE, 3)
    assert digits.test_images.shape == (500, SIZE, SIZE, 3)
    assert digits.train_images.dtype == digits.test_images.dtype == torch.uint8
    assert digits.train_labels.dtype == digits.test_labels.dtype == torch.int64
    assert digits.size == SIZE
    assert len(digits.classes) == 10


def test_split_is_a_partition_of_scikit_learns_digits(digits: Images) -> None:
    # Back to 8x8 and 0..16, both parts together are the original images, each exactly as often as it is there.
    images = torch.cat([digits.train_images, digits.test_images]).numpy()
    labels = torch.cat([digits.train_labels, digits.test_labels]).numpy()
    assert (images == images[..., :1]).all()
    small = images[:, ::2, ::2, 0]
    assert (small.repeat(2, axis=1).repeat(2, axis=2) == images[..., 0]).all()
    original = load_digits()
    ours = sorted(zip((image.tobytes() for image in small), labels.tolist(), strict=True))
    grey = (original.images * 255 / 16).round().astype(np.uint8)
    theirs = sorted(zip((image.tobytes() for image in grey), original.target.tolist(), strict=True))
    assert ours == theirs
    assert len({row for row, _ in theirs}) == 1797  # no image twice, so the two parts share none


def test_every_class_is_in_both_parts(digits: Images) -> None:
    assert torch.bincount(digits.train_labels, minlength=10).min() > 100
    assert torch.bincount(digits.test_labels, minlength=10).min() > 30


def test_validation_is_cut_from_the_training_images_alone(digits: Images) -> None:
    (train, train_labels), (held_out, held_out_labels) = digits.split(200)
    assert torch.equal(torch.cat([train, held_out]), digits.train_images)
    assert torch.equal(torch.cat([train_labels, held_out_labels]), digits.train_labels)
    assert len(held_out) == len(held_out_labels) == 200
    test = {image.numpy().tobytes() for image in digits.test_images}
    assert not test & {image.numpy().tobytes() for image in torch.cat([train, held_out])}


def test_without_validation_the_test_set_is_scored(digits: Images) -> None:
    (train, _), (scored, labels) = digits.split(0)
    assert torch.equal(train, digits.train_images)
    assert torch.equal(scored, digits.test_images)
    assert torch.equal(labels, digits.test_labels)


def test_other_bytes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    original = load_digits()
    original.images[700, 3, 3] = 15 - original.images[700, 3, 3]
    monkeypatch.setattr(module, "load_digits", lambda: original)
    with pytest.raises(UserError, match=CHECKSUM):
        read_digits()

"""CIFAR-10, the real one: official bytes, official order, and one wrong bit is named."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from trained_binarization.datasets.augment import channel_statistics
from trained_binarization.datasets.cifar10 import CHECKSUM, FILES, read_cifar10, verify
from trained_binarization.datasets.images import Images
from trained_binarization.errors import UserError

FOLDER = "cifar-10-batches-py"


@pytest.fixture(scope="module")
def cifar10(cifar10_root: Path) -> Images:
    return read_cifar10(str(cifar10_root), download=False)


def linked(root: Path, into: Path) -> Path:
    """A root whose seven files are links to the real ones."""
    (into / FOLDER).mkdir(parents=True)
    for name in FILES:
        (into / FOLDER / name).symlink_to(root / FOLDER / name)
    return into


def test_files_and_their_md5_are_the_official_ones(cifar10_root: Path) -> None:
    assert len(FILES) == 7
    for name, md5 in FILES.items():
        assert hashlib.md5((cifar10_root / FOLDER / name).read_bytes()).hexdigest() == md5, name


def test_checksum_is_over_the_list_of_md5s(cifar10: Images) -> None:
    listed = "".join(f"{FILES[name]}  {name}\n" for name in sorted(FILES))
    assert cifar10.checksum == CHECKSUM == hashlib.sha256(listed.encode()).hexdigest()
    assert cifar10.files == FILES


def test_arrays_are_torchvisions(cifar10: Images, cifar10_root: Path) -> None:
    for train, images, labels in (
        (True, cifar10.train_images, cifar10.train_labels),
        (False, cifar10.test_images, cifar10.test_labels),
    ):
        theirs = CIFAR10(str(cifar10_root), train=train, download=False)
        np.testing.assert_array_equal(images.numpy(), theirs.data)
        assert labels.tolist() == theirs.targets
    assert cifar10.train_images.shape == (50_000, 32, 32, 3)
    assert cifar10.test_images.shape == (10_000, 32, 32, 3)
    assert torch.bincount(cifar10.train_labels).tolist() == [5000] * 10
    assert torch.bincount(cifar10.test_labels).tolist() == [1000] * 10
    assert cifar10.classes[3] == "cat"


def test_channel_statistics_are_the_known_ones(cifar10: Images) -> None:
    mean, std = channel_statistics(cifar10.train_images)
    np.testing.assert_allclose(mean.numpy() / 255, [0.4914, 0.4822, 0.4465], atol=5e-5)
    np.testing.assert_allclose(std.numpy() / 255, [0.2470, 0.2435, 0.2616], atol=5e-5)
    exact = cifar10.train_images.numpy().reshape(-1, 3)
    np.testing.assert_allclose(mean.numpy(), exact.mean(0, dtype="float64"), rtol=1e-6)
    np.testing.assert_allclose(std.numpy(), exact.std(0, dtype="float64"), rtol=1e-6)


def test_validation_never_holds_a_test_image(cifar10: Images) -> None:
    (train, _), (held_out, labels) = cifar10.split(5000)
    assert (len(train), len(held_out), len(labels)) == (45_000, 5000, 5000)
    assert torch.equal(held_out, cifar10.train_images[45_000:])
    assert held_out.data_ptr() != cifar10.test_images.data_ptr()
    test = {hashlib.sha256(image.tobytes()).digest() for image in cifar10.test_images.numpy()}
    assert not test & {hashlib.sha256(image.tobytes()).digest() for image in held_out.numpy()}


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta"])
def test_one_wrong_bit_is_named(name: str, cifar10_root: Path, tmp_path: Path) -> None:
    root = linked(cifar10_root, tmp_path)
    path = root / FOLDER / name
    content = bytearray((cifar10_root / FOLDER / name).read_bytes())
    content[len(content) // 2] ^= 0b100
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(UserError, match=FILES[name]) as told:
        verify(str(root))
    assert str(path) in str(told.value)


@pytest.mark.parametrize("name", ["data_batch_4", "batches.meta"])
def test_a_missing_file_is_named(name: str, cifar10_root: Path, tmp_path: Path) -> None:
    root = linked(cifar10_root, tmp_path)
    (root / FOLDER / name).unlink()
    with pytest.raises(UserError, match="no such file") as told:
        read_cifar10(str(root), download=False)
    assert str(root / FOLDER / name) in str(told.value)
    assert "download" in str(told.value)


def test_whole_files_elsewhere_are_as_good(cifar10_root: Path, tmp_path: Path) -> None:
    root = linked(cifar10_root, tmp_path)
    copy = root / FOLDER / "batches.meta"
    copy.unlink()
    shutil.copyfile(cifar10_root / FOLDER / "batches.meta", copy)
    verify(str(root))

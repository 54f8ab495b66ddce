"""CIFAR-10 (Krizhevsky 2009) from torchvision's archive, every file's MD5 verified before it is read."""

import hashlib
from pathlib import Path

import torch
from torchvision.datasets import CIFAR10

from trained_binarization.datasets.images import Images
from trained_binarization.errors import UserError

FILES = {name: md5 for name, md5 in [*CIFAR10.train_list, *CIFAR10.test_list]} | {
    CIFAR10.meta["filename"]: CIFAR10.meta["md5"]
}
"""The official files and their MD5, as torchvision pins them."""

CHECKSUM = hashlib.sha256("".join(f"{md5}  {name}\n" for name, md5 in sorted(FILES.items())).encode()).hexdigest()
"""SHA-256 over the official list of MD5s: data with this checksum is CIFAR-10 to the last byte."""


def verify(root: str) -> None:
    """Check that every file is there and whole; UserError names the first that is not."""
    folder = Path(root) / CIFAR10.base_folder
    for name, md5 in FILES.items():
        path = folder / name
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; allowed: the official CIFAR-10 python archive, unpacked there by hand, "
                "or fetched with dataset.download: true"
            )
        found = hashlib.md5(path.read_bytes()).hexdigest()
        if found != md5:
            raise UserError(f"{path}: MD5: found {found}; allowed: {md5}, the official file's; fetch it again")


def read_cifar10(root: str, download: bool) -> Images:
    """50,000 train and 10,000 test images of 32x32, official order."""
    if download:
        try:
            CIFAR10(root, train=True, download=True)
        except (OSError, RuntimeError) as error:
            raise UserError(f"{root}: dataset.download: true failed: {error}") from None
    verify(root)
    train, test = CIFAR10(root, train=True), CIFAR10(root, train=False)
    return Images(
        name="cifar10",
        train_images=torch.from_numpy(train.data),
        train_labels=torch.tensor(train.targets),
        test_images=torch.from_numpy(test.data),
        test_labels=torch.tensor(test.targets),
        checksum=CHECKSUM,
        files=FILES,
        classes=tuple(train.classes),
    )

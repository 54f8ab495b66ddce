"""Image sets: one uint8 tensor each, with its checksum; `augment` makes batches of it where the training runs."""

from trained_binarization.datasets.images import Images
from trained_binarization.study import Dataset


def open_dataset(dataset: Dataset) -> "Images":
    """The data set, verified against its checksums; UserError where it is missing or damaged, with the remedy."""
    # Each reader's libraries are imported only where its images are asked for.
    if dataset.name == "cifar10":
        from trained_binarization.datasets.cifar10 import read_cifar10

        return read_cifar10(dataset.root, dataset.download)
    from trained_binarization.datasets.digits import read_digits

    return read_digits()

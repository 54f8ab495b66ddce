"""Image sets with their checksums: small ones in memory, folders of files read while they are trained on."""

from typing import TYPE_CHECKING

from trained_binarization.study import Dataset, ImageFolder

if TYPE_CHECKING:
    from torch import Tensor

    from trained_binarization.datasets.folder import FolderImages, Streamed, StreamedScored
    from trained_binarization.datasets.images import Images, Resident, ResidentScored

    ImageSet = Images | FolderImages
    TrainedOn = Resident | Streamed
    Scored = ResidentScored | StreamedScored


def pixels(scored: "Scored") -> tuple["Tensor", "Tensor"]:
    """All images that are scored, as one uint8 tensor (N, H, W, 3), and their labels."""
    import torch

    from trained_binarization.datasets.images import EVALUATION_BATCH

    images, labels, place = torch.empty(0), torch.empty(len(scored), dtype=torch.int64), 0
    for batch, target in scored.batches(EVALUATION_BATCH):
        if not place:  # in one piece from the start: all of ImageNet's are 7 GB
            images = torch.empty(len(scored), *batch.shape[1:], dtype=torch.uint8)
        images[place : place + len(batch)], labels[place : place + len(batch)] = batch, target
        place += len(batch)
    return images, labels


def open_dataset(dataset: Dataset, network: str) -> "ImageSet":
    """The images as one of the study's networks sees them, verified; UserError where they are missing or damaged."""
    # Each reader's libraries are imported only where its images are asked for.
    if isinstance(dataset, ImageFolder):
        from trained_binarization.datasets.folder import read_folder

        return read_folder(dataset, dataset.image_size[network])
    if dataset.name == "cifar10":
        from trained_binarization.datasets.cifar10 import read_cifar10

        return read_cifar10(dataset.root, dataset.download)
    from trained_binarization.datasets.digits import read_digits

    return read_digits()

"""The `prepare` stage: verify the data set and write down which bytes it is."""

from pathlib import Path

from trained_binarization.datasets import open_dataset
from trained_binarization.errors import UserError
from trained_binarization.records import Data, data_path, read_data, write_json
from trained_binarization.study import Study


def known_checksum(name: str) -> str:
    """The checksum that the data set must have, known before it is read."""
    if name == "cifar10":
        from trained_binarization.datasets.cifar10 import CHECKSUM
    else:
        from trained_binarization.datasets.digits import CHECKSUM
    return CHECKSUM


def _names_the_right_bytes(study: Study, results: Path) -> bool:
    try:
        return read_data(results, study).checksum == known_checksum(study.dataset.name)
    except UserError:
        return False  # not there, damaged, or of another data set: all of it can be written anew


def prepare(study: Study, results: Path) -> str:
    """Write results/<study>/data.json; returns a line that says what was done.

    Where the file is there and names the right bytes, nothing is read: a fresh clone with committed records needs no
    images, and whoever trains verifies them again before use.
    """
    path = data_path(results, study)
    if not study.dataset.download and _names_the_right_bytes(study, results):
        path.touch()
        return f"{path}: already there; the images are verified again by whatever trains on them"
    images = open_dataset(study.dataset)
    images.split(study.dataset.validation)
    data = Data(
        dataset=images.name,
        checksum=images.checksum,
        train_images=len(images.train_labels),
        test_images=len(images.test_labels),
        files=images.files,
    )
    write_json(path, data.model_dump())
    return f"{path}: {data.train_images} train and {data.test_images} test images, checksum {data.checksum[:12]}"

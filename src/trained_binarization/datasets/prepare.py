"""The `prepare` stage: verify the data set and write down which bytes it is."""

from pathlib import Path

from trained_binarization.datasets import open_dataset
from trained_binarization.datasets.images import check_validation
from trained_binarization.errors import UserError
from trained_binarization.files import refresh, write_json
from trained_binarization.records import Data, data_path, read_data
from trained_binarization.study import ImageFolder, SmallImages, Study


def known_checksum(name: str) -> str:
    """The checksum that the data set must have, known before it is read."""
    if name == "cifar10":
        from trained_binarization.datasets.cifar10 import CHECKSUM
    else:
        from trained_binarization.datasets.digits import CHECKSUM
    return CHECKSUM


def _needs_no_images(study: Study, results: Path) -> bool:
    """Whether data.json is there, and is right, or there are no images to tell."""
    dataset = study.dataset
    try:
        found = read_data(results, study).checksum
        if isinstance(dataset, SmallImages):
            return not dataset.download and found == known_checksum(dataset.name)
        return not Path(dataset.root).is_dir()
    except (UserError, OSError):
        return False  # not there, damaged, or of another data set: all of it can be written anew


def prepare(study: Study, results: Path, again: bool = False) -> str:
    """Write results/<study>/data.json; returns a line that says what was done.

    Where the file is there and names the right bytes, nothing is read: a fresh clone with committed records needs no
    images, and whoever trains verifies them again before use. A folder of images is checked file by file, but for
    what was checked before. With `again` everything is read.
    """
    path = data_path(results, study)
    if not again and _needs_no_images(study, results):
        refresh(path)
        return f"{path}: already there; whatever trains on the images verifies them again"
    if isinstance(study.dataset, ImageFolder):
        from trained_binarization.datasets.index import make_index

        make_index(study.dataset, again)
    images = open_dataset(study.dataset, study.networks[0])
    train_images, test_images = images.counts
    check_validation(study.dataset.validation, train_images)
    data = Data(
        dataset=images.name,
        checksum=images.checksum,
        train_images=train_images,
        test_images=test_images,
        files=images.files,
    )
    write_json(path, data.model_dump())
    return f"{path}: {data.train_images} train and {data.test_images} test images, checksum {data.checksum[:12]}"

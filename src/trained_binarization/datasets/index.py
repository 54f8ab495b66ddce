"""A folder of images, checked: every file decoded once, its size and SHA-256 in an index, class by class.

The index lies in the study's `dataset.cache`, one file a part and class, so that an interrupted `prepare` goes on with
the class where it was. ImageNet's 1.28 million names are held as bytes, some 30 MB, and nothing of its images.
"""

import csv
import hashlib
import io
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from trained_binarization.errors import UserError
from trained_binarization.records import read_json, write_json, write_text
from trained_binarization.study import ImageFolder

PARTS = ("train", "val")
SUFFIXES = (".jpeg", ".jpg", ".png")
JPEG_QUALITY = 95
"""Of the smaller copy."""

IMAGENET = {"classes": 1000, "train": 1_281_167, "val": 50_000}
"""ILSVRC2012: a verdict on the paper's claim is on all of it."""


@dataclass(frozen=True)
class Index:
    """Files by number: paths below `root`, as bytes, and labels, int64 (N,)."""

    root: Path
    names: np.ndarray
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, number: int) -> Path:
        """Where the image lies."""
        return self.root / os.fsdecode(bytes(self.names[number]))

    def some(self, numbers: Tensor) -> "Index":
        """The images of these numbers."""
        return replace(self, names=self.names[numbers.numpy()], labels=self.labels[numbers])


def decode(path: Path, content: bytes) -> Image.Image:
    """An image file's content as RGB; grey, CMYK and PNG under a JPEG's name are in ImageNet, too."""
    try:
        return Image.open(io.BytesIO(content)).convert("RGB")
    except UnidentifiedImageError:
        reason = "no image format that is known"
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's, for what is damaged in one way or another
        reason = str(error)
    raise UserError(f"{path}: cannot be read as an image: {reason}; replace or remove it")


def folders(dataset: ImageFolder) -> list[str]:
    """The classes' names, sorted: their places are the labels. UserError where train and val do not fit together."""
    root = Path(dataset.root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; allowed: {dataset.name} as {root}/{{train,val}}/<class>/<file>.JPEG")
    found = {}
    for part in PARTS:
        if not (root / part).is_dir():
            raise UserError(f"{root / part}: no such folder; allowed: a folder with a folder for each class")
        found[part] = {entry.name for entry in os.scandir(root / part) if entry.is_dir()}
    for part, other in (PARTS, PARTS[::-1]):
        if alone := sorted(found[part] - found[other]):
            raise UserError(f"{root / part / alone[0]}: found a class that {other} has not; allowed: the same in both")
    _expect(dataset, "classes", len(found["train"]))
    return sorted(found["train"])


def _expect(dataset: ImageFolder, what: str, found: int) -> None:
    if dataset.name == "imagenet" and found != IMAGENET[what]:
        raise UserError(f"{dataset.root}: {what}: found {found}; allowed: {IMAGENET[what]}, all of ImageNet's")


def _listing(folder: Path) -> list[tuple[str, int]]:
    """(name, bytes) of a class's images, sorted; UserError where there are none."""
    with os.scandir(folder) as entries:
        listing = sorted((e.name, e.stat().st_size) for e in entries if e.name.lower().endswith(SUFFIXES))
    if not listing:
        raise UserError(f"{folder}: found no images; allowed: at least one .JPEG, .jpg or .png in each class")
    return listing


def _rows(path: Path) -> list[tuple[str, int, str]]:
    """(name, bytes, SHA-256) of a class's images, as the index has them; none where it has not."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [(name, int(size), sha) for name, size, sha in csv.reader(file)]
    except (FileNotFoundError, ValueError):  # the latter where it is damaged: the class is checked again
        return []


def _copy_root(dataset: ImageFolder) -> Path:
    return Path(dataset.cache, f"copy{dataset.copy_side}")


def _check(folder: Path, copy: tuple[Path, int] | None, name: str) -> str:
    """The file's SHA-256, after it was decoded, and written smaller if so asked; UserError where it is damaged."""
    content = (folder / name).read_bytes()
    image = decode(folder / name, content)
    if copy:
        target, side = copy
        scale = min(1.0, side / min(image.size))
        smaller = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        partial_file = target / f".{name}.partial"
        smaller.save(partial_file, "JPEG", quality=JPEG_QUALITY)
        partial_file.replace(target / name)
    return hashlib.sha256(content).hexdigest()


def _index_class(dataset: ImageFolder, part: str, name: str, pool: ThreadPoolExecutor) -> tuple[str, list[str]]:
    """(the class's index as text, what is wrong with its files). A class that is as the index has it is not read."""
    folder, path = Path(dataset.root, part, name), Path(dataset.cache, "index", part, f"{name}.csv")
    listing, rows = _listing(folder), _rows(path)
    copy = (_copy_root(dataset) / part / name, dataset.copy_side) if dataset.copy_side else None
    copied = not copy or all((copy[0] / file).is_file() for file, _ in listing)
    if copied and [row[:2] for row in rows] == listing:
        return path.read_text(encoding="utf-8"), []
    if copy:
        copy[0].mkdir(parents=True, exist_ok=True)
    text, faults = io.StringIO(), []
    writer = csv.writer(text, lineterminator="\n")
    futures = [pool.submit(_check, folder, copy, file) for file, _ in listing]
    for (file, size), future in zip(listing, futures, strict=True):
        try:
            writer.writerow((file, size, future.result()))
        except (UserError, OSError) as error:
            faults.append(str(error))
    if not faults:
        write_text(path, text.getvalue())
    return text.getvalue(), faults


def make_index(dataset: ImageFolder) -> None:
    """Check the folder and write its index; what was checked before is not read again.

    Files that cannot be read are named one by one on stderr; then UserError.
    """
    classes, digest, faulty = folders(dataset), hashlib.sha256(), 0
    counts = dict.fromkeys(PARTS, 0)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # decoding and hashing leave Python's lock alone
        for part in PARTS:
            for name in tqdm(classes, desc=f"{dataset.root}/{part}", unit="class", disable=None):
                text, faults = _index_class(dataset, part, name, pool)
                digest.update(f"{part}/{name}\n{text}".encode())
                counts[part] += text.count("\n")
                faulty += len(faults)
                for fault in faults:
                    print(fault, file=sys.stderr, flush=True)
    if faulty:
        raise UserError(f"{dataset.root}: found {faulty} files that cannot be read, named above; allowed: none")
    for part in PARTS:
        _expect(dataset, part, counts[part])
    write_json(_summary(dataset), {"classes": classes, "checksum": digest.hexdigest()})


def _summary(dataset: ImageFolder) -> Path:
    return Path(dataset.cache, "index.json")


def read_index(dataset: ImageFolder) -> tuple[Index, Index, tuple[str, ...], str]:
    """(train, val, the classes' names, the checksum over every file's name, size and content)."""
    if not _summary(dataset).exists():
        make_index(dataset)
    summary = read_json(_summary(dataset))
    read = partial(_read_part, dataset, summary["classes"])
    return read("train"), read("val"), tuple(summary["classes"]), summary["checksum"]


def _read_part(dataset: ImageFolder, classes: list[str], part: str) -> Index:
    names: list[np.ndarray] = []
    for name in classes:
        rows = _rows(Path(dataset.cache, "index", part, f"{name}.csv"))
        names.append(np.array([os.fsencode(f"{part}/{name}/{file}") for file, _, _ in rows]))
    labels = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(one) for one in names]))
    return Index(_copy_root(dataset) if dataset.copy_side else Path(dataset.root), np.concatenate(names), labels)

"""A folder of images, checked: every file decoded once, its size and SHA-256 in an index, class by class.

The index lies in the study's `dataset.cache`, one file a part and class, so that an interrupted `prepare` goes on with
the class where it was; so does that of a smaller copy. ImageNet's 1.28 million names and SHA-256 fill some 90 MB in
memory, and nothing of its images.
"""

import csv
import hashlib
import io
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from trained_binarization.errors import UserError
from trained_binarization.files import read_json, sha256, write_json, write_text
from trained_binarization.machine import usable_cpus
from trained_binarization.study import ImageFolder

PARTS = ("train", "val")
SUFFIXES = (".jpeg", ".jpg", ".png")
JPEG_QUALITY = 95
"""Of the smaller copy."""

IMAGENET = {"classes": 1000, "train": 1_281_167, "val": 50_000}
"""ILSVRC2012: a verdict on the paper's claim is on all of it."""


@dataclass(frozen=True)
class Index:
    """Files by number: paths below `root` and SHA-256 as bytes, and labels, int64 (N,)."""

    root: Path
    names: np.ndarray
    digests: np.ndarray
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, number: int) -> Path:
        """Where the image lies."""
        return self.root / os.fsdecode(bytes(self.names[number]))

    def content(self, number: int) -> bytes:
        """The file's bytes; UserError where they are not those that were indexed."""
        path = self.path(number)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}; prepare again") from None
        found = hashlib.sha256(content).digest()
        if found != self.digests[number].tobytes():
            expected = self.digests[number].tobytes().hex()[:12]
            raise UserError(
                f"{path}: SHA-256: found {found.hex()[:12]}; allowed: {expected}, as indexed; prepare again"
            )
        return content

    def image(self, number: int) -> Image.Image:
        """The image as RGB; UserError where its bytes are not those that were indexed."""
        return decode(self.path(number), self.content(number))

    def some(self, numbers: Tensor) -> "Index":
        """The images of these numbers."""
        chosen = numbers.numpy()
        return replace(self, names=self.names[chosen], digests=self.digests[chosen], labels=self.labels[numbers])


def decode(path: Path, content: bytes) -> Image.Image:
    """An image file's content as RGB; grey, CMYK and PNG under a JPEG's name are in ImageNet, too."""
    try:
        return Image.open(io.BytesIO(content)).convert("RGB")
    except UnidentifiedImageError:
        reason = "no image format that is known"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's, for what is damaged
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
    """(name, bytes) of a class's images, sorted; UserError where there are none, or one that no index can hold."""
    listing = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.lower().endswith(SUFFIXES):
                continue
            if not entry.name.isprintable():  # control characters, and bytes that are not UTF-8
                raise UserError(f"{folder}: found the file name {entry.name!r}; allowed: printable characters")
            try:
                listing.append((entry.name, entry.stat().st_size))
            except OSError as error:
                raise UserError(f"{entry.path}: cannot be read: {error.strerror}; replace or remove it") from None
    if not listing:
        raise UserError(f"{folder}: found no images; allowed: at least one .JPEG, .jpg or .png in each class")
    return sorted(listing)


Rows = list[tuple[str, int, str]]
"""A class: name, bytes and SHA-256 of each image."""


def _read_rows(path: Path) -> Rows | None:
    """A class as the index has it; None where it has not, or is damaged: then the class is checked again."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [(name, int(size), sha) for name, size, sha in csv.reader(file)]
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; allowed: a cache of files of ours") from None


def _text(rows: Rows) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _originals(dataset: ImageFolder) -> Path:
    return Path(dataset.cache, "index")


def _copies(dataset: ImageFolder) -> Path:
    return Path(dataset.cache, f"copy{dataset.copy_side}")


def _copied(image: Image.Image, path: Path, side: int) -> bytes:
    """Write an image with its short side at most so long; returns what was written."""
    scale = min(1.0, side / min(image.size))
    smaller = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    content = io.BytesIO()
    smaller.save(content, "JPEG", quality=JPEG_QUALITY)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content.getvalue())
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    return content.getvalue()


class _Damaged(Exception):
    """A file of the user's that cannot be read: the others are looked at all the same."""


def _check(path: Path, copy: tuple[Path, int] | None) -> tuple[tuple[str, int, str], tuple[str, int, str]]:
    """(the file's row, its copy's): read, decoded, and written smaller if so asked."""
    try:
        content = path.read_bytes()
        image = decode(path, content)
    except UserError as error:
        raise _Damaged(str(error)) from None
    except OSError as error:
        raise _Damaged(f"{path}: cannot be read: {error.strerror}; replace or remove it") from None
    row = (path.name, len(content), hashlib.sha256(content).hexdigest())
    if copy is None:
        return row, row
    smaller = _copied(image, copy[0] / path.name, copy[1])
    return row, (path.name, len(smaller), hashlib.sha256(smaller).hexdigest())


def _index_class(dataset: ImageFolder, part: str, name: str, pool: ThreadPoolExecutor) -> tuple[str, list[str]]:
    """(the class's index as text, what is wrong with its files). A class that is as the index has it is not read."""
    folder, path = Path(dataset.root, part, name), _originals(dataset) / part / f"{name}.csv"
    listing, rows = _listing(folder), _read_rows(path)
    fresh = rows is not None and [row[:2] for row in rows] == listing
    copy = (_copies(dataset) / part / name, dataset.copy_side) if dataset.copy_side else None
    of_copy, original = (_copies(dataset) / part / f"{name}{suffix}" for suffix in (".csv", ".original"))
    if copy:
        fresh = (
            fresh and _read_rows(of_copy) is not None and original.is_file() and sha256(path) == original.read_text()
        )
    if fresh and rows is not None:
        return _text(rows), []
    _summary(dataset).unlink(missing_ok=True)
    if copy:
        copy[0].mkdir(parents=True, exist_ok=True)
    futures = [pool.submit(_check, folder / file, copy) for file, _ in listing]
    faults, found = [], []
    for future in futures:
        try:
            found.append(future.result())
        except _Damaged as error:
            faults.append(str(error))
    text = _text([row for row, _ in found])
    if not faults:
        write_text(path, text)
        if copy:
            write_text(of_copy, _text([row for _, row in found]))
            write_text(original, sha256(path))  # whose copies these are
    return text, faults


def make_index(dataset: ImageFolder) -> None:
    """Check the folder and write its index; what was checked before, and has the same names and sizes, is not read.

    Files that cannot be read are named one by one on stderr; then UserError.
    """
    classes, digest, faulty = folders(dataset), hashlib.sha256(), 0
    counts = dict.fromkeys(PARTS, 0)
    with ThreadPoolExecutor(usable_cpus()) as pool:  # decoding and hashing leave Python's lock alone
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
    return Path(dataset.cache, f"index{dataset.copy_side or ''}.json")


def read_index(dataset: ImageFolder) -> tuple[Index, Index, tuple[str, ...], str]:
    """(train, val, the classes' names, the checksum over every file's name, size and content); made where it is not."""
    summary = _summary(dataset)
    if not summary.exists():
        make_index(dataset)
    said = read_json(summary)
    classes, digest = tuple(said["classes"]), hashlib.sha256()
    train, val = (_read_part(dataset, classes, part, digest) for part in PARTS)
    if digest.hexdigest() != said["checksum"]:
        raise UserError(
            f"{summary}: checksum: found {digest.hexdigest()[:12]}; allowed: {said['checksum'][:12]}; prepare again"
        )
    return train, val, classes, digest.hexdigest()


def _read_part(dataset: ImageFolder, classes: tuple[str, ...], part: str, digest: "hashlib._Hash") -> Index:
    names: list[np.ndarray] = []
    digests: list[bytes] = []
    for name in classes:
        originals = _rows_of(_originals(dataset) / part / f"{name}.csv")
        digest.update(f"{part}/{name}\n{_text(originals)}".encode())
        read = _rows_of(_copies(dataset) / part / f"{name}.csv") if dataset.copy_side else originals
        names.append(np.array([os.fsencode(f"{part}/{name}/{file}") for file, _, _ in read]))
        digests += [bytes.fromhex(sha) for _, _, sha in read]
    labels = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(one) for one in names]))
    table = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32)
    root = _copies(dataset) if dataset.copy_side else Path(dataset.root)
    return Index(root, np.concatenate(names), table, labels)


def _rows_of(path: Path) -> Rows:
    rows = _read_rows(path)
    if rows is None:
        raise UserError(f"{path}: found no whole index of the class; prepare again")
    return rows

"""A folder of images, checked: every file decoded once, its size, SHA-256 and time of change in an index.

The index lies in the study's `dataset.cache`, one file a part and class, so that an interrupted `prepare` goes on with
the class where it was; so does that of a smaller copy. ImageNet's 1.28 million names and SHA-256 fill some 90 MB in
memory, and nothing of its images.

A class is read again where one of its files, or of their copies, has another name, size or time of change than in the
index. So a file of the same size that takes another's place is seen. Whoever changes a file and sets its time back
needs `prepare --again`, which reads every file. Every image that is loaded is compared with its SHA-256 besides.
"""

import csv
import hashlib
import io
import os
import stat
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor
from tqdm import tqdm

from trained_binarization.datasets.decode import decode, read_file
from trained_binarization.errors import UserError
from trained_binarization.files import read_json, write_json, write_text
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
        content = read_file(path, "prepare again")
        found = hashlib.sha256(content).digest()
        if found != self.digests[number].tobytes():
            expected = self.digests[number].tobytes().hex()[:12]
            raise UserError(
                f"{path}: SHA-256: found {found.hex()[:12]}; allowed: {expected}, as indexed; "
                "put the right file there, or read every image again with prepare --again"
            )
        return content

    def image(self, number: int) -> Image.Image:
        """The image as RGB; UserError where its bytes are not those that were indexed."""
        return decode(self.path(number), self.content(number))

    def some(self, numbers: Tensor) -> "Index":
        """The images of these numbers."""
        chosen = numbers.numpy()
        return replace(self, names=self.names[chosen], digests=self.digests[chosen], labels=self.labels[numbers])


# ------------------------------------------------------------------------------------------------- the user's folder


@contextmanager
def _reading(path: Path, allowed: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}; allowed: {allowed}") from None


def folders(dataset: ImageFolder) -> list[str]:
    """The classes' names, sorted: their places are the labels. UserError where train and val do not fit together."""
    root = Path(dataset.root)
    with _reading(root, "a folder that you may read"):
        if not root.is_dir():
            layout = f"{dataset.name} as {root}/{{train,val}}/<class>/<file>.JPEG"
            raise UserError(f"{root}: no such folder; allowed: {layout}")
        found = {part: _classes(root / part) for part in PARTS}
    for part, other in (PARTS, PARTS[::-1]):
        if alone := sorted(found[part] - found[other]):
            raise UserError(f"{root / part / alone[0]}: found a class that {other} has not; allowed: the same in both")
    _expect(dataset, "classes", len(found["train"]))
    return sorted(found["train"])


def _classes(folder: Path) -> set[str]:
    with _reading(folder, "a folder that you may read, with a folder for each class"), os.scandir(folder) as entries:
        found = {entry.name for entry in entries if entry.is_dir()}
    if not found:
        raise UserError(f"{folder}: found no folder in it; allowed: a folder for each class")
    for name in found:
        _check_name(folder, "folder", name)
    return found


def _check_name(folder: Path, what: str, name: str) -> None:
    """UserError where no index can hold a name: it has control characters, or bytes that are not UTF-8."""
    if not name.isprintable():
        raise UserError(f"{folder}: found the {what} name {name!r}; allowed: printable characters")


def _expect(dataset: ImageFolder, what: str, found: int) -> None:
    if dataset.name == "imagenet" and found != IMAGENET[what]:
        raise UserError(f"{dataset.root}: {what}: found {found}; allowed: {IMAGENET[what]}, all of ImageNet's")


Stat = tuple[int, int | None]
"""What tells that a file is as it was, without reading it: its bytes, and its time of change in nanoseconds."""


def _images(folder: Path) -> dict[str, Stat]:
    """A class's images by name, sorted; UserError where there are none, or one that cannot be indexed."""
    found: dict[str, Stat] = {}
    with _reading(folder, "a folder that you may read"), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.lower().endswith(SUFFIXES):
                continue
            _check_name(folder, "file", entry.name)
            with _reading(Path(entry.path), "a JPEG or PNG file; replace or remove it"):
                status = entry.stat()
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{entry.path}: found no regular file; allowed: a JPEG or PNG file; remove it")
            found[entry.name] = (status.st_size, status.st_mtime_ns)
    if not found:
        raise UserError(f"{folder}: found no images; allowed: at least one .JPEG, .jpg or .png in each class")
    return dict(sorted(found.items()))


# ------------------------------------------------------------------------------------------------------ the index


class Row(NamedTuple):
    """An image as a class's index has it. `changed` is None in an index from before it was kept."""

    name: str
    size: int
    sha256: str
    changed: int | None

    @property
    def stat(self) -> Stat:
        """To be compared with the file's."""
        return self.size, self.changed


SEAL = "# SHA-256 of the lines above: "
"""Begins the last line of an index, so that a damaged one is not believed."""


def _row(name: str, size: str, sha: str, changed: str | None = None) -> Row:
    if len(bytes.fromhex(sha)) != hashlib.sha256().digest_size or os.sep in name:
        raise ValueError(f"no row of an index: {name}, {sha}")
    return Row(name, int(size), sha, None if changed is None else int(changed))


def _read_rows(path: Path) -> list[Row] | None:
    """A class as the index has it; None where it has not, or is damaged: then the class is read again."""
    try:
        body, seal, said = path.read_bytes().decode().rpartition(SEAL)
        if seal and hashlib.sha256(body.encode()).hexdigest() != said.strip():
            return None
        rows = [_row(*row) for row in csv.reader(io.StringIO(body if seal else said, newline=""))]
    except (FileNotFoundError, TypeError, ValueError, csv.Error):
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; allowed: a cache of files of ours") from None
    if not seal and any(row.changed is not None for row in rows):
        return None  # cut off
    return rows or None


def _csv(rows: list[tuple[str, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _write_rows(path: Path, rows: list[Row]) -> None:
    body = _csv([tuple(map(str, row)) for row in rows])
    write_text(path, f"{body}{SEAL}{hashlib.sha256(body.encode()).hexdigest()}\n")


def _content(rows: list[Row]) -> str:
    """What the data's checksum is over: name, bytes and SHA-256 of each image. The time of a change is no content."""
    return _csv([(row.name, str(row.size), row.sha256) for row in rows])


def _digest(rows: list[Row]) -> str:
    return hashlib.sha256(_content(rows).encode()).hexdigest()


def _originals(dataset: ImageFolder) -> Path:
    return Path(dataset.cache, "index")


def _copies(dataset: ImageFolder) -> Path:
    return Path(dataset.cache, f"copy{dataset.copy_side}")


def _summary(dataset: ImageFolder) -> Path:
    return Path(dataset.cache, f"index{dataset.copy_side or ''}.json")


class _Summary(BaseModel):
    """What a whole index amounts to."""

    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    checksum: str


def _read_summary(path: Path) -> _Summary | None:
    """None where there is none; UserError where it is damaged."""
    with _reading(path, "a cache that you may read"):
        if not path.exists():
            return None
    try:
        return _Summary.model_validate(read_json(path))
    except ValidationError:
        raise UserError(f"{path}: found another content than an index's; prepare again") from None


# ---------------------------------------------------------------------------------------------------- what is written

TAG = "CACHEDIR.TAG"
"""In a folder of copies: says that we made it, and to programs that make backups that it is a cache.

Its content is fixed by the Cache Directory Tagging Specification, https://bford.info/cachedir/.
"""
TAG_CONTENT = (
    "Signature: 8a477f597d28d172789f06886806bc55\n# Smaller copies of images, made by trained-binarization prepare.\n"
)


def _check_apart(dataset: ImageFolder) -> None:
    """UserError where what `prepare` writes would lie among the user's images, or they among that."""
    root = Path(os.path.realpath(dataset.root))
    written = [Path(dataset.cache), _originals(dataset), *([_copies(dataset)] if dataset.copy_side else [])]
    for path in written:
        found = Path(os.path.realpath(path))
        if found.is_relative_to(root) or root.is_relative_to(found):
            raise UserError(
                f"dataset.cache: found {path}, which is or holds dataset.root, or lies in it ({root}); "
                "allowed: a folder apart from the images"
            )
    if dataset.copy_side:
        _check_ours(_copies(dataset))


def _check_ours(copies: Path) -> None:
    """UserError where a folder of copies holds files, and nothing says that we have written them."""
    with _reading(copies, "a folder of ours, or none"):
        if not copies.exists() or (copies / TAG).is_file() or not any(copies.iterdir()):
            return
        if any(copies.glob("*/*.original")):  # made before there was a tag
            return
    raise UserError(f"{copies}: found files that prepare has not written; allowed: none, or another dataset.cache")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None


class _Copies:
    """The smaller copies of a class's images, and their index."""

    def __init__(self, dataset: ImageFolder, part: str, name: str) -> None:
        assert dataset.copy_side
        self.side, self.all, self.source = dataset.copy_side, _copies(dataset), Path(dataset.root, part, name)
        self.folder = self.all / part / name
        self.index, self.original = (self.all / part / f"{name}{suffix}" for suffix in (".csv", ".original"))

    def whole(self, rows: list[Row]) -> bool:
        """Whether all are there, as they were written, of the originals that have these rows."""
        copies = _read_rows(self.index)
        try:
            with os.scandir(self.folder) as entries:
                found = {entry.name: (entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries}
            whose = self.original.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return False
        return (
            copies is not None
            and whose == _digest(rows)
            and [copy.name for copy in copies] == [row.name for row in rows]
            and all(found.get(copy.name) == copy.stat for copy in copies)
        )

    def begin(self) -> None:
        """Make the folder; UserError where a link leads from it to elsewhere, or the originals lie in it."""
        expected = Path(os.path.realpath(self.all)) / self.folder.relative_to(self.all)
        folder, source = (Path(os.path.realpath(path)) for path in (self.folder, self.source))
        if folder != expected or source.is_relative_to(folder) or folder.is_relative_to(source):
            raise UserError(f"{self.folder}: found {folder}, originals in {source}; allowed: no links to each other")
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.all / TAG).is_file():
            write_text(self.all / TAG, TAG_CONTENT)

    def write(self, name: str, image: Image.Image) -> Row:
        """Write an image with its short side at most so long."""
        scale = min(1.0, self.side / min(image.size))
        smaller = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        content = io.BytesIO()
        smaller.save(content, "JPEG", quality=JPEG_QUALITY)
        path = self.folder / name
        partial = path.with_name(f".{name}.{os.getpid()}.partial")
        try:
            with _writing(path):
                partial.write_bytes(content.getvalue())  # not forced to the disk one by one: that takes its time
                partial.replace(path)
                changed = path.stat().st_mtime_ns
        finally:
            partial.unlink(missing_ok=True)
        return Row(name, len(content.getvalue()), hashlib.sha256(content.getvalue()).hexdigest(), changed)

    def finish(self, copies: list[Row], rows: list[Row]) -> None:
        """Write their index, and whose copies they are."""
        _write_rows(self.index, copies)
        write_text(self.original, _digest(rows))


class _Damaged(Exception):
    """A file of the user's that cannot be read: the others are looked at all the same."""


def _check(path: Path, changed: int | None, copies: _Copies | None) -> tuple[Row, Row | None]:
    """(the file's row, its copy's): read, decoded, and written smaller if so asked."""
    try:
        content = read_file(path)
        image = decode(path, content)
    except UserError as error:
        raise _Damaged(str(error)) from None
    row = Row(path.name, len(content), hashlib.sha256(content).hexdigest(), changed)
    return row, copies.write(path.name, image) if copies else None


def _index_class(
    dataset: ImageFolder, part: str, name: str, pool: ThreadPoolExecutor, again: bool
) -> tuple[list[Row], list[str]]:
    """(the class's rows, what is wrong with its files). A class that is as the index has it is not read."""
    folder, path = Path(dataset.root, part, name), _originals(dataset) / part / f"{name}.csv"
    copies = _Copies(dataset, part, name) if dataset.copy_side else None
    images, rows = _images(folder), _read_rows(path)
    if rows and not again and {row.name: row.stat for row in rows} == images and (not copies or copies.whole(rows)):
        return rows, []
    with _writing(_summary(dataset)):
        _summary(dataset).unlink(missing_ok=True)
    if copies:
        copies.begin()
    futures = [pool.submit(_check, folder / file, changed, copies) for file, (_, changed) in images.items()]
    faults, found = [], []
    for future in futures:
        try:
            found.append(future.result())
        except _Damaged as error:
            faults.append(str(error))
    rows = [row for row, _ in found]
    if not faults:
        _write_rows(path, rows)
        if copies:
            copies.finish([copy for _, copy in found if copy], rows)
    return rows, faults


def make_index(dataset: ImageFolder, again: bool = False) -> None:
    """Check the folder and write its index; a class whose files are as they were is read only with `again`.

    Files that cannot be read are named one by one on stderr; then UserError.
    """
    _check_apart(dataset)
    classes, digest, faulty = folders(dataset), hashlib.sha256(), 0
    counts = dict.fromkeys(PARTS, 0)
    with ThreadPoolExecutor(usable_cpus()) as pool:  # decoding and hashing leave Python's lock alone
        for part in PARTS:
            for name in tqdm(classes, desc=f"{dataset.root}/{part}", unit="class", disable=None):
                rows, faults = _index_class(dataset, part, name, pool, again)
                digest.update(f"{part}/{name}\n{_content(rows)}".encode())
                counts[part] += len(rows)
                faulty += len(faults)
                for fault in faults:
                    print(fault, file=sys.stderr, flush=True)
    if faulty:
        raise UserError(f"{dataset.root}: found {faulty} files that cannot be read, named above; allowed: none")
    for part in PARTS:
        _expect(dataset, part, counts[part])
    path, summary = _summary(dataset), _Summary(classes=tuple(classes), checksum=digest.hexdigest())
    with suppress(UserError):  # damaged: it is written anew
        if _read_summary(path) == summary:
            return  # so that a whole cache may lie where nothing can be written
    write_json(path, summary.model_dump())


# ------------------------------------------------------------------------------------------------------ what is read


def read_index(dataset: ImageFolder) -> tuple[Index, Index, tuple[str, ...], str]:
    """(train, val, the classes' names, the checksum over every file's name, size and content); made where it is not."""
    path = _summary(dataset)
    said = _read_summary(path)
    if said is None:
        make_index(dataset)
        said = _read_summary(path)
        assert said
    digest = hashlib.sha256()
    train, val = (_read_part(dataset, said.classes, part, digest) for part in PARTS)
    if digest.hexdigest() != said.checksum:
        raise UserError(
            f"{path}: checksum: found {digest.hexdigest()[:12]}; allowed: {said.checksum[:12]}; prepare again"
        )
    return train, val, said.classes, said.checksum


def _read_part(dataset: ImageFolder, classes: tuple[str, ...], part: str, digest: "hashlib._Hash") -> Index:
    names: list[np.ndarray] = []
    digests: list[bytes] = []
    for name in classes:
        rows = _rows_of(_originals(dataset) / part / f"{name}.csv")
        digest.update(f"{part}/{name}\n{_content(rows)}".encode())
        if dataset.copy_side:
            path = _copies(dataset) / part / f"{name}.csv"
            originals, rows = rows, _rows_of(path)
            if [row.name for row in rows] != [row.name for row in originals]:
                raise UserError(f"{path}: found copies of other images; allowed: of all originals; prepare again")
        names.append(np.array([os.fsencode(f"{part}/{name}/{row.name}") for row in rows]))
        digests += [bytes.fromhex(row.sha256) for row in rows]
    labels = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(one) for one in names]))
    table = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32)
    root = _copies(dataset) if dataset.copy_side else Path(dataset.root)
    return Index(root, np.concatenate(names), table, labels)


def _rows_of(path: Path) -> list[Row]:
    rows = _read_rows(path)
    if rows is None:
        raise UserError(f"{path}: found no whole index of the class; prepare again")
    return rows

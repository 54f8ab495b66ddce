"""Files that appear whole or not at all, their SHA-256, and JSON."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from trained_binarization.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; UserError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def refresh(path: Path) -> None:
    """Set a file's time to now, for engines that go by time; in a folder that is read-only it stays."""
    with suppress(OSError):
        os.utime(path)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it becomes `path`, whole and on the disk, or does not appear at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}; nothing there was changed") from None
    finally:
        with suppress(OSError):  # its folder may not be there, or be closed
            partial.unlink()


@contextmanager
def held(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder for this process; UserError where another process holds it. Its end, a kill too, lets it go."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}; nothing there was changed") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{folder}: another process is working on {what}; wait for it, or stop it") from None
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, **layout: Any) -> None:
    """Write a value as JSON, indented by 2 unless `layout` says otherwise, whole or not at all.

    UserError where a number is not finite: JSON has none.
    """
    try:
        text = json.dumps(value, allow_nan=False, **{"indent": 2} | layout)
    except ValueError as error:
        raise UserError(f"{path}: cannot be written: {error}; nothing there was changed") from None
    write_text(path, text + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object that we wrote; UserError where it is damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: found damaged content ({error}); allowed: a whole file; delete it") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: found {type(value).__name__}; allowed: an object; delete the file")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def read_model(path: Path, model: type[Model], remedy: str) -> Model:
    """A JSON file as a model; UserError with the remedy where it is damaged, foreign, or cannot be read."""
    try:
        return model.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"])) or "content"
        raise UserError(f"{path}: {key}: found damaged or foreign content ({fault['msg']}); {remedy}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}; {remedy}") from None

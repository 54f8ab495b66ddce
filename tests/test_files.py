"""Files as they are found: JSON that is none, and what cannot be read, in one line."""

import json
import os
from pathlib import Path

import pytest
from pydantic import BaseModel

from trained_binarization.errors import UserError
from trained_binarization.files import read_json, read_model, refresh, sha256, write_json


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_a_number_that_is_not_finite_is_not_written(value: float, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": 1.5})
    with pytest.raises(UserError, match=r"a\.json: cannot be written: Out of range float values"):
        write_json(path, {"x": [value]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"x": 1.5}


class Number(BaseModel):
    x: float


DAMAGED = {
    "empty": b"",
    "cut": b'{"x": 1.',
    "not UTF-8": b'{"x": "\xff"}',
    "a list": b"[1]",
    "deep": b"[" * 100_000,
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_json_is_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    for read in (read_json, lambda path: read_model(path, Number, "make it anew")):
        with pytest.raises(UserError) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: ")
        assert str(error.value).isprintable()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_json_has_no_number_that_is_not_finite(number: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(f'{{"x": {number}}}', encoding="utf-8")
    with pytest.raises(UserError, match=f"{number} is no JSON"):
        read_json(path)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        for read in (sha256, read_json, lambda path: read_model(path, Number, "make it anew")):
            with pytest.raises(UserError, match=str(path)):
                read(path)


def test_refreshing_changes_the_time_alone_and_makes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("as it is", encoding="utf-8")
    os.utime(path, (1, 1))
    refresh(path)
    assert path.stat().st_mtime > 1e9
    assert path.read_text(encoding="utf-8") == "as it is"
    refresh(tmp_path / "nowhere")
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]

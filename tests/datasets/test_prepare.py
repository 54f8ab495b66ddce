"""The prepare stage."""

import json
from pathlib import Path

import pytest

from helpers import small_settings, small_study
from trained_binarization.datasets.digits import CHECKSUM
from trained_binarization.datasets.prepare import known_checksum, prepare
from trained_binarization.errors import UserError
from trained_binarization.study import Study


def test_it_writes_which_bytes_the_data_set_is(tmp_path: Path) -> None:
    line = prepare(small_study(), tmp_path)
    data = json.loads((tmp_path / "small" / "data.json").read_text(encoding="utf-8"))
    assert data == {"dataset": "digits", "checksum": CHECKSUM, "train_images": 1297, "test_images": 500, "files": {}}
    assert "1297" in line
    assert CHECKSUM[:12] in line


def test_where_it_is_there_nothing_is_read_or_changed(tmp_path: Path) -> None:
    # CIFAR-10 that is nowhere: a fresh clone with committed records needs no images.
    settings = small_settings(dataset={"name": "cifar10", "root": str(tmp_path / "nowhere")})
    study = Study.model_validate(settings)
    path = tmp_path / "small" / "data.json"
    path.parent.mkdir()
    written = {
        "dataset": "cifar10",
        "checksum": known_checksum("cifar10"),
        "train_images": 50_000,
        "test_images": 10_000,
        "files": {},
    }
    path.write_text(json.dumps(written), encoding="utf-8")
    assert "already there" in prepare(study, tmp_path)
    assert json.loads(path.read_text(encoding="utf-8")) == written
    path.unlink()
    with pytest.raises(UserError, match="nowhere"):
        prepare(study, tmp_path)


def test_known_checksum_is_what_reading_gives(tmp_path: Path) -> None:
    assert known_checksum("digits") == CHECKSUM
    prepare(small_study(), tmp_path)
    before = (tmp_path / "small" / "data.json").read_bytes()
    assert "already there" in prepare(small_study(), tmp_path)
    assert (tmp_path / "small" / "data.json").read_bytes() == before


@pytest.mark.parametrize("content", ["", '{"dataset": "digits"', "[]", '{"dataset": "digits", "checksum": "0"}'])
def test_a_damaged_data_file_is_made_anew_by_the_command_that_the_message_names(content: str, tmp_path: Path) -> None:
    # Readers say "make it anew with: trained-binarization prepare", so prepare has to.
    path = tmp_path / "small" / "data.json"
    path.parent.mkdir()
    path.write_text(content, encoding="utf-8")
    prepare(small_study(), tmp_path)
    assert json.loads(path.read_text(encoding="utf-8"))["checksum"] == CHECKSUM


def test_again_reads_the_images_also_where_the_file_is_right(tmp_path: Path) -> None:
    prepare(small_study(), tmp_path)
    assert "1297 train" in prepare(small_study(), tmp_path, again=True)
    settings = small_settings(dataset={"name": "cifar10", "root": str(tmp_path / "nowhere")})
    with pytest.raises(UserError, match="nowhere"):
        prepare(Study.model_validate(settings), tmp_path, again=True)

"""Checkpoints: whole or not at all, the one before kept, a damaged one told and passed over."""

from pathlib import Path

import pytest
import torch

from trained_binarization.training.checkpoint import FOLDER, load_checkpoint, remove_checkpoints, save_checkpoint


def save(folder: Path, step: int) -> Path:
    tensors = {"a": torch.full((100,), float(step)), "b/c": torch.arange(step + 1)}
    return save_checkpoint(folder, step, tensors, {"step": step, "list": [{"x": 1.5, "y": None}]})


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    save(tmp_path, 7)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    tensors, progress = loaded
    assert progress == {"step": 7, "list": [{"x": 1.5, "y": None}]}
    assert torch.equal(tensors["a"], torch.full((100,), 7.0))
    assert torch.equal(tensors["b/c"], torch.arange(8))


def test_none_where_there_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    assert load_checkpoint(tmp_path / "nowhere") is None


def test_the_newest_and_the_one_before_are_kept(tmp_path: Path) -> None:
    paths = [save(tmp_path, step) for step in (9, 10, 99, 100, 1000)]
    assert sorted((tmp_path / FOLDER).iterdir()) == sorted(paths[-2:])
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded[1]["step"] == 1000


@pytest.mark.parametrize("damage", ["one bit", "cut", "empty", "a folder"])
def test_a_damaged_one_is_told_and_the_one_before_used(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    content = bytearray(newest.read_bytes())
    if damage == "one bit":
        content[-1] ^= 1
        newest.write_bytes(content)
    elif damage == "cut":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        newest.write_bytes(b"")
    else:
        newest.unlink()
        newest.mkdir()
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded[1]["step"] == 1
    told = capsys.readouterr().out
    assert f"{newest}: damaged, not used" in told


def test_all_damaged_is_told_and_none_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (save(tmp_path, 1), save(tmp_path, 2)):
        path.write_bytes(path.read_bytes()[:-3])
    assert load_checkpoint(tmp_path) is None
    assert capsys.readouterr().out.count(": damaged, not used") == 2


def test_what_is_saved_after_damage_is_not_removed_again(tmp_path: Path) -> None:
    # Two damaged checkpoints of later steps: the training begins anew, and its first checkpoint has to count.
    for path in (save(tmp_path, 90), save(tmp_path, 100)):
        path.write_bytes(path.read_bytes()[:-3])
    assert load_checkpoint(tmp_path) is None
    path = save(tmp_path, 5)
    assert path.is_file()
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded[1]["step"] == 5


def test_half_written_files_are_no_checkpoints(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (path.parent / ".step000000002-0123456789abcdef.safetensors.1234.partial").write_bytes(path.read_bytes()[:50])
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded[1]["step"] == 1


def test_removal_leaves_the_other_files_of_the_run(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "record.json").write_text("{}", encoding="utf-8")
    remove_checkpoints(tmp_path)
    remove_checkpoints(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]

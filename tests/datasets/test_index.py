"""`prepare` on a folder of images: what it names, what it takes, how it goes on, and the smaller copy."""

import csv
import hashlib
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from folders import COUNTS, folder_dataset, folder_settings, write_folder
from helpers import Outcome, command, write_params
from trained_binarization.datasets import index
from trained_binarization.datasets.index import decode, read_index
from trained_binarization.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "images")


def prepared(root: Path, **changes: object) -> Outcome:
    write_params(root.parent / "params.yaml", folder_settings(root, **changes))
    return command("prepare", folder=root.parent)


def data(root: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((root.parent / "results/photographs/data.json").read_text("utf-8"))
    return content


def test_it_counts_every_file_and_its_checksum_is_over_every_byte(root: Path) -> None:
    outcome = prepared(root)
    assert outcome.status == 0, outcome.err
    assert (data(root)["train_images"], data(root)["test_images"]) == (3 * COUNTS["train"], 3 * COUNTS["val"])
    digest = hashlib.sha256()
    for part in ("train", "val"):
        for folder in sorted((root / part).iterdir()):
            digest.update(f"{part}/{folder.name}\n".encode())
            for path in sorted(folder.iterdir(), key=lambda path: path.name):
                content = path.read_bytes()
                digest.update(f"{path.name},{len(content)},{hashlib.sha256(content).hexdigest()}\n".encode())
    assert data(root)["checksum"] == digest.hexdigest()


def test_labels_are_the_places_of_the_classes_names(root: Path) -> None:
    train, val, classes, _ = read_index(folder_dataset(root))
    assert classes == ("n00", "n01", "n02")
    assert (len(train), len(val)) == (72, 24)
    for part in (train, val):
        for number, label in enumerate(part.labels.tolist()):
            assert part.path(number).is_file()
            assert part.path(number).parent.name == classes[label]


def test_other_files_are_no_images(root: Path) -> None:
    before = read_index(folder_dataset(root))[3]
    (root / "train" / "n00" / ".DS_Store").write_bytes(b"x")
    (root / "readme.txt").write_text("no class")
    assert prepared(root).status == 0
    assert data(root)["checksum"] == before


def test_cmyk_grey_and_png_under_the_name_of_a_jpeg_are_read_as_rgb(root: Path) -> None:
    for kind, mode in (("JPEG", "CMYK"), ("JPEG", "L"), ("PNG", "RGB"), ("PNG", "RGBA")):
        path = root / "train" / "n01" / f"{kind}-{mode}.JPEG"
        original = Image.open(root / "train" / "n01" / "0.JPEG")
        original.convert(mode).save(path, kind)
        expected = np.asarray(original.convert("RGB"), dtype=float)
        found = np.asarray(decode(path, path.read_bytes()), dtype=float)
        assert found.shape == expected.shape
        assert np.abs(found - expected).mean() < 3  # a JPEG's loss
    assert prepared(root).status == 0
    assert data(root)["train_images"] == 72 + 4


def test_every_damaged_file_is_named_and_the_rest_is_kept_for_the_next_time(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truncated, empty, text = (root / "train" / "n01" / f"{name}.JPEG" for name in ("3", "empty", "text"))
    whole = truncated.read_bytes()
    truncated.write_bytes(whole[: len(whole) // 2])
    empty.write_bytes(b"")
    text.write_text("<html>404</html>")
    outcome = prepared(root)
    assert outcome.status == 2
    lines = outcome.err.splitlines()
    assert len(lines) == 4
    for path, line in zip((truncated, empty, text), lines, strict=False):
        assert line.startswith(f"{path}: cannot be read as an image: ")
    assert lines[3] == f"error: {root}: found 3 files that cannot be read, named above; allowed: none"
    assert not (root.parent / "results").exists()

    truncated.write_bytes(whole)
    empty.unlink()
    text.unlink()
    read: list[Path] = []
    monkeypatch.setattr(index, "decode", lambda path, content: read.append(path) or decode(path, content))
    assert prepared(root).status == 0
    assert {path.parent.name for path in read} == {"n01"}
    assert len(read) == COUNTS["train"]  # train/n01 alone: the rest was indexed before


def test_a_file_that_changed_is_seen(root: Path) -> None:
    assert prepared(root).status == 0
    before = data(root)["checksum"]
    other = (root / "train" / "n00" / "1.JPEG").read_bytes()
    (root / "train" / "n01" / "1.JPEG").write_bytes(other + b"\0")
    assert prepared(root).status == 0
    assert data(root)["checksum"] != before


def test_an_index_that_a_kill_left_half_is_completed(root: Path) -> None:
    assert prepared(root).status == 0
    before = data(root)["checksum"]
    (root.parent / "cache" / "index.json").unlink()
    (root.parent / "cache" / "index" / "val" / "n02.csv").unlink()
    damaged = root.parent / "cache" / "index" / "train" / "n00.csv"
    damaged.write_text(damaged.read_text()[:100])
    assert read_index(folder_dataset(root))[3] == before


@pytest.mark.parametrize(("part", "other"), [("train", "val"), ("val", "train")], ids=["only in train", "only in val"])
def test_a_class_in_one_part_alone_is_named(part: str, other: str, root: Path) -> None:
    (root / part / "n99").mkdir()
    outcome = prepared(root)
    assert outcome.status == 2
    assert (
        outcome.err == f"error: {root / part / 'n99'}: found a class that {other} has not; allowed: the same in both\n"
    )


def test_an_empty_class_is_named(root: Path) -> None:
    for part in ("train", "val"):
        (root / part / "n99").mkdir()
    outcome = prepared(root)
    assert outcome.status == 2
    assert f"{root / 'train' / 'n99'}: found no images; allowed: at least one" in outcome.err


def test_less_than_all_of_imagenet_is_told(root: Path) -> None:
    outcome = prepared(root, name="imagenet")
    assert outcome.status == 2
    assert f"{root}: classes: found 3; allowed: 1000" in outcome.err


def test_a_missing_folder_is_told_but_needed_by_no_finished_study(root: Path) -> None:
    elsewhere = root.parent / "elsewhere"
    outcome = prepared(elsewhere)
    assert outcome.status == 2
    assert f"{elsewhere}: no such folder; allowed: imagenette as {elsewhere}/{{train,val}}/<class>" in outcome.err
    assert prepared(root).status == 0
    outcome = prepared(elsewhere)
    assert outcome.status == 0
    assert "already there" in outcome.out


def test_the_smaller_copy_is_made_once_and_read_in_place_of_the_originals(root: Path) -> None:
    small = root / "train" / "n00" / "small.JPEG"
    Image.new("RGB", (20, 30)).save(small, "JPEG")
    assert prepared(root).status == 0
    before = data(root)["checksum"]
    assert prepared(root, copy_side=36).status == 0
    assert data(root)["checksum"] == before  # that of the originals; the copy's side is a setting
    train, val, _, _ = read_index(folder_dataset(root, copy_side=36))
    for part in (train, val):
        for number in range(len(part)):
            path = part.path(number)
            width, height = Image.open(path).size
            original = Image.open(root / path.relative_to(part.root)).size
            assert path.is_relative_to(root.parent / "cache" / "copy36")
            assert min(width, height) == min(36, *original)
            assert width / height == pytest.approx(original[0] / original[1], rel=0.05)
    times = {path: path.stat().st_mtime_ns for path in (root.parent / "cache" / "copy36").rglob("*.JPEG")}
    assert prepared(root, copy_side=36).status == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times

    # An original that changed while nobody asked for the copy.
    Image.new("RGB", (100, 90), "red").save(root / "train" / "n01" / "0.JPEG")
    assert prepared(root).status == 0
    with pytest.raises(UserError, match=r"checksum: found \w+; allowed: \w+; prepare again"):
        read_index(folder_dataset(root, copy_side=36))
    assert prepared(root, copy_side=36).status == 0
    changed = {path for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert {path.parent.name for path in changed} == {"n01"}
    train, _, _, _ = read_index(folder_dataset(root, copy_side=36))
    (number,) = (number for number in range(len(train)) if train.path(number).parts[-2:] == ("n01", "0.JPEG"))
    assert train.image(number).size == (40, 36)


def test_an_index_that_is_not_the_one_that_was_checked_is_told(root: Path) -> None:
    assert prepared(root).status == 0
    path = root.parent / "cache" / "index" / "train" / "n01.csv"
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: text.index("\n") + 1], encoding="utf-8")
    with pytest.raises(UserError, match=r"index\.json: checksum: found \w+; allowed: \w+; prepare again"):
        read_index(folder_dataset(root))
    path.unlink()
    with pytest.raises(UserError, match=f"{path}: found no whole index of the class; prepare again"):
        read_index(folder_dataset(root))
    assert prepared(root).status == 0
    assert path.read_text(encoding="utf-8") == text


def test_while_something_is_wrong_nothing_is_trained(root: Path) -> None:
    assert prepared(root).status == 0
    (root / "train" / "n01" / "bad.JPEG").write_bytes(b"x")
    assert prepared(root).status == 2
    outcome = command("pretrain", "--network", "resnet18", "--seed", "0", folder=root.parent)
    assert outcome.status == 2
    assert "bad.JPEG: cannot be read as an image" in outcome.err


def test_other_bytes_than_those_indexed_are_told(root: Path) -> None:
    train, _, _, _ = read_index(folder_dataset(root))
    path = train.path(30)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=rf"^{path}: SHA-256: found \w+; allowed: \w+, as indexed; prepare again$"):
        train.image(30)


@pytest.mark.parametrize("name", ["a\rb.JPEG", "a\nb.JPEG", os.fsdecode(b"\xe9.JPEG")], ids=["CR", "LF", "not UTF-8"])
def test_file_names_that_no_index_can_hold_are_told(name: str, root: Path) -> None:
    shutil.copy(root / "train" / "n01" / "0.JPEG", root / "train" / "n01" / name)
    outcome = prepared(root)
    assert outcome.status == 2
    assert f"{root / 'train' / 'n01'}: found the file name {name!r}; allowed: printable characters" in outcome.err


def test_names_with_commas_and_quotes_are_fine(root: Path) -> None:
    shutil.copy(root / "train" / "n01" / "0.JPEG", root / "train" / "n01" / 'a, "b" ü.JPEG')
    assert prepared(root).status == 0
    train, _, _, _ = read_index(folder_dataset(root))
    assert 'a, "b" ü.JPEG' in {train.path(number).name for number in range(len(train))}


def test_a_link_that_leads_nowhere_is_told(root: Path) -> None:
    (root / "train" / "n01" / "gone.JPEG").symlink_to(root / "nowhere")
    outcome = prepared(root)
    assert outcome.status == 2
    assert "gone.JPEG: cannot be read: No such file or directory" in outcome.err


def test_the_index_is_text_that_a_person_can_read(root: Path) -> None:
    assert prepared(root).status == 0
    text = (root.parent / "cache" / "index" / "train" / "n00.csv").read_text(encoding="utf-8")
    for name, size, sha in csv.reader(io.StringIO(text)):
        path = root / "train" / "n00" / name
        assert path.stat().st_size == int(size)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha

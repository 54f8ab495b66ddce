"""`prepare` on a folder of images: what it names, what it takes, how it goes on, and the smaller copy."""

import csv
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from pictures import refused
from PIL import Image

from folders import COUNTS, folder_dataset, folder_settings, write_folder
from helpers import Outcome, command, tree, write_params
from trained_binarization.datasets import index
from trained_binarization.datasets.decode import decode
from trained_binarization.datasets.index import read_index
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
    with pytest.raises(UserError, match=f"{path}: found no whole index of the class; prepare again"):
        read_index(folder_dataset(root))
    other = folder_dataset(root, cache=str(root.parent / "other"))
    shutil.copytree(root, root.parent / "changed")
    Image.new("RGB", (9, 9)).save(root.parent / "changed" / "train" / "n01" / "0.JPEG")
    read_index(other.model_copy(update={"root": str(root.parent / "changed")}))
    shutil.copy(root.parent / "other" / "index" / "train" / "n01.csv", path)  # whole, and of other files
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
    with pytest.raises(
        UserError, match=rf"^{path}: SHA-256: found \w+; allowed: \w+, as indexed; [^\n]* prepare --again$"
    ):
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
    *rows, seal = text.splitlines(keepends=True)
    for name, size, sha, changed in csv.reader(rows):
        path = root / "train" / "n00" / name
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (int(size), int(changed))
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha
    assert seal.split()[-1] == hashlib.sha256("".join(rows).encode()).hexdigest()


# ------------------------------------------------------------------------- what changed, and what the next command does


def padded(content: bytes, size: int) -> bytes:
    """A JPEG made longer by what no decoder reads."""
    assert len(content) <= size
    return content + bytes(size - len(content))


def exchange(path: Path, other: Path) -> None:
    """Put another picture in a file's place, of the same size; both grow to the larger of the two."""
    size = max(path.stat().st_size, other.stat().st_size)
    path.write_bytes(padded(other.read_bytes(), size))


@pytest.fixture
def equal(root: Path) -> Path:
    """A folder whose files train/n00/*.JPEG have one size."""
    paths = sorted((root / "train" / "n00").iterdir())
    most = max(path.stat().st_size for path in paths)
    for path in paths:
        path.write_bytes(padded(path.read_bytes(), most))
    return root


@pytest.mark.parametrize("changes", [{}, {"copy_side": 36}], ids=["originals", "copies"])
def test_a_change_of_equal_size_is_seen(changes: dict[str, int], equal: Path) -> None:
    assert prepared(equal, **changes).status == 0
    before = data(equal)["checksum"]
    path, other = (equal / "train" / "n00" / f"{number}.JPEG" for number in (0, 1))
    size = path.stat().st_size
    exchange(path, other)
    assert path.stat().st_size == size
    assert prepared(equal, **changes).status == 0
    assert data(equal)["checksum"] != before
    train, _, _, _ = read_index(folder_dataset(equal, **changes))
    assert np.array_equal(np.asarray(train.image(0)), np.asarray(train.image(1)))


def test_a_change_with_its_time_set_back_is_told_by_the_loader_and_mended_by_prepare_again(equal: Path) -> None:
    assert prepared(equal).status == 0
    before = data(equal)["checksum"]
    path, other = (equal / "train" / "n00" / f"{number}.JPEG" for number in (0, 1))
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    exchange(path, other)
    os.utime(path, ns=times)
    assert prepared(equal).status == 0
    assert data(equal)["checksum"] == before
    with pytest.raises(UserError, match=rf"^{path}: SHA-256: [^\n]* prepare --again$"):
        read_index(folder_dataset(equal))[0].image(0)
    assert command("prepare", "--again", folder=equal.parent).status == 0
    assert data(equal)["checksum"] != before
    read_index(folder_dataset(equal))[0].image(0)


@pytest.mark.parametrize("removed", ["train/n01/7.JPEG", "train/n01", "val", "."], ids=["one", "a class", "val", "all"])
def test_copies_that_were_removed_are_made_again(removed: str, root: Path) -> None:
    assert prepared(root, copy_side=36).status == 0
    copies = root.parent / "cache" / "copy36"
    before, checksum = tree(copies), data(root)["checksum"]
    path = copies / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert prepared(root, copy_side=36).status == 0
    found = tree(copies)
    assert {name for name, content in found.items() if content != before[name]} <= {
        name
        for name in before
        if name.endswith(".csv")  # with the times of the new files
    }
    assert found.keys() == before.keys()
    assert data(root)["checksum"] == checksum
    for part in read_index(folder_dataset(root, copy_side=36))[:2]:
        for number in range(len(part)):
            part.image(number)


def test_a_copy_that_was_changed_is_made_again(root: Path) -> None:
    assert prepared(root, copy_side=36).status == 0
    copy = root.parent / "cache" / "copy36" / "train" / "n01" / "3.JPEG"
    before = copy.read_bytes()
    copy.write_bytes(before[:-3] + b"xyz")
    assert prepared(root, copy_side=36).status == 0
    assert copy.read_bytes() == before


def test_an_index_from_before_times_were_kept_is_trained_on_and_completed(
    equal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepared(equal).status == 0
    before = data(equal)["checksum"]
    for path in (equal.parent / "cache" / "index").rglob("*.csv"):
        rows = csv.reader(path.read_text(encoding="utf-8").splitlines()[:-1])
        path.write_text("".join(f"{name},{size},{sha}\n" for name, size, sha, _ in rows), encoding="utf-8")
    read: list[Path] = []
    monkeypatch.setattr(index, "decode", lambda path, content: read.append(path) or decode(path, content))
    assert read_index(folder_dataset(equal))[3] == before
    assert not read
    exchange(equal / "train" / "n00" / "0.JPEG", equal / "train" / "n00" / "1.JPEG")
    assert prepared(equal).status == 0
    assert len(read) == 3 * sum(COUNTS.values())  # once
    assert data(equal)["checksum"] != before
    assert prepared(equal).status == 0
    assert len(read) == 3 * sum(COUNTS.values())


def test_nothing_is_read_or_written_where_nothing_changed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepared(root, copy_side=36).status == 0
    times = {path: path.stat().st_mtime_ns for path in (root.parent / "cache").rglob("*")}
    monkeypatch.setattr(index, "decode", None)
    assert prepared(root, copy_side=36).status == 0
    assert {path: path.stat().st_mtime_ns for path in (root.parent / "cache").rglob("*")} == times


def test_prepare_again_reads_every_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepared(root).status == 0
    read: list[Path] = []
    monkeypatch.setattr(index, "decode", lambda path, content: read.append(path) or decode(path, content))
    assert command("prepare", "--again", folder=root.parent).status == 0
    assert len(read) == 3 * sum(COUNTS.values())


def damaged(content: bytes) -> dict[str, bytes]:
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    return {"flipped": flipped, "not UTF-8": content[:middle] + b"\xff" + content[middle:]} | {
        "cut": content[:middle],
        "emptied": b"",
        "a line less": b"".join(content.splitlines(keepends=True)[1:]),
        "NUL": content[:middle] + b"\0" + content[middle:],
        "something else": b'{"a": [1]}\n',
        "quotes": b'"' * 200_000,
    }


@pytest.mark.parametrize("how", damaged(b"x"))
def test_a_damaged_file_of_the_cache_is_told_and_mended(how: str, root: Path) -> None:
    dataset = folder_dataset(root, copy_side=36)
    assert prepared(root, copy_side=36).status == 0
    cache, checksum = root.parent / "cache", data(root)["checksum"]
    ours = ("index/train/n01.csv", "copy36/val/n00.csv", "copy36/val/n00.original", "index36.json")
    for path in [cache / name for name in ours]:
        whole = path.read_bytes()
        path.write_bytes(damaged(whole)[how])
        try:
            said = read_index(dataset)[3]
        except UserError as error:
            said = str(error)
        # No loader needs to know whose copies they are; `prepare` does.
        assert re.fullmatch(checksum if path.suffix == ".original" else rf"{path}: [^\n]+", said)
        outcome = prepared(root, copy_side=36)
        assert (outcome.status, data(root)["checksum"]) == (0, checksum), outcome.err
        assert read_index(dataset)[3] == checksum
        assert len(path.read_bytes()) == len(whole)


@pytest.mark.parametrize(
    "name", ["index/train/n01.csv", "copy36/train/n01.csv", "copy36/train/n01/3.JPEG", "index36.json"]
)
def test_a_folder_in_a_files_place_is_told(name: str, root: Path) -> None:
    assert prepared(root, copy_side=36).status == 0
    path = root.parent / "cache" / name
    path.unlink()
    path.mkdir()
    outcome = prepared(root, copy_side=36)
    assert outcome.status == 2
    assert re.fullmatch(rf"error: {path}: [^\n]*(Is a directory)[^\n]*\n", outcome.err), outcome.err


# ------------------------------------------------------------------------------------------- the user's own images


@pytest.mark.parametrize(
    ("images", "cache", "links"),
    [
        ("data/copy64", "data", {}),
        ("data", "data", {}),
        ("data", "data/cache", {}),
        ("data", "data/train/n00", {}),
        ("data", "link/cache", {"link": "data"}),
        ("data/copy64", "link", {"link": "data"}),
        ("data", "cache", {"cache/copy64": "data"}),
        ("data", "cache", {"cache/index": "data/train"}),
        ("data", "cache", {"cache/copy64/train": "data/train", "cache/copy64/CACHEDIR.TAG": "data/tag"}),
        ("data", "cache", {"cache/copy64/val/n01": "data/val/n01", "cache/copy64/CACHEDIR.TAG": "data/tag"}),
        ("data", "cache", {"cache/copy64": "elsewhere"}),
    ],
)
@pytest.mark.parametrize("again", [False, True])
def test_prepare_never_writes_where_the_users_images_lie(
    images: str, cache: str, links: dict[str, str], again: bool, tmp_path: Path
) -> None:
    root = write_folder(tmp_path / images)
    shutil.copytree(root, tmp_path / "elsewhere")  # other images of the user's, which are no part of the study
    (root / "tag").write_text("x")
    for link, target in links.items():
        (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / link).symlink_to(tmp_path / target)
    before = tree(root), tree(tmp_path / "elsewhere")
    write_params(tmp_path / "params.yaml", folder_settings(root, cache=str(tmp_path / cache), copy_side=64))
    outcome = command("prepare", *(["--again"] if again else []), folder=tmp_path)
    assert outcome.status == 2
    assert len(outcome.err.splitlines()) == 1, outcome.err
    assert "allowed: " in outcome.err
    assert (tree(root), tree(tmp_path / "elsewhere")) == before


def test_a_folder_beside_the_images_is_apart_from_them(root: Path) -> None:
    assert prepared(root, cache=f"{root}-cache", copy_side=36).status == 0
    assert prepared(root, cache=f"{root}/../images-2", copy_side=36).status == 0


def test_class_folders_may_be_links(root: Path, tmp_path: Path) -> None:
    (root / "train" / "n01").rename(tmp_path / "elsewhere")
    (root / "train" / "n01").symlink_to(tmp_path / "elsewhere")
    before = tree(tmp_path / "elsewhere")
    assert prepared(root, copy_side=36).status == 0
    assert tree(tmp_path / "elsewhere") == before


# --------------------------------------------------------------------------------------------- faults of the folder


def test_every_file_that_cannot_be_shown_has_its_line(root: Path) -> None:
    for name, content in refused().items():
        (root / "train" / "n01" / f"{name}.JPEG").write_bytes(content)
    outcome = prepared(root)
    assert outcome.status == 2
    *lines, last = outcome.err.splitlines()
    assert {line.partition(".JPEG: cannot be read as an image: ")[0] for line in lines} == {
        str(root / "train" / "n01" / name) for name in refused()
    }
    assert last.startswith(f"error: {root}: found {len(refused())} files that cannot be read")


@pytest.mark.parametrize("name", [os.fsdecode(b"n\xe9"), "n\n1", "n\x1b[31m"], ids=["not UTF-8", "LF", "escape"])
def test_class_names_that_no_index_can_hold_are_told(name: str, root: Path) -> None:
    for part in ("train", "val"):
        shutil.copytree(root / part / "n00", root / part / name)
    outcome = prepared(root)
    assert outcome.status == 2
    told = f"{root / 'train'}: found the folder name {name!r}; allowed: printable characters"
    assert outcome.err == f"error: {told}\n"


def test_folders_without_classes_are_told(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / "images" / part).mkdir(parents=True)
    outcome = prepared(tmp_path / "images")
    assert outcome.status == 2
    assert f"{tmp_path / 'images' / 'train'}: found no folder in it; allowed: a folder for each class" in outcome.err


def test_a_pipe_under_an_images_name_is_told(root: Path) -> None:
    os.mkfifo(root / "train" / "n01" / "pipe.JPEG")
    outcome = prepared(root)
    assert outcome.status == 2
    assert f"{root / 'train' / 'n01' / 'pipe.JPEG'}: found no regular file" in outcome.err


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user can reach, with images, and a cache that every user can write to."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        write_folder(folder / "images")
        (folder / "cache").mkdir()
        (folder / "cache").chmod(0o777)
        yield folder


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """As another user where the tests run as root, whom no permissions bind."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("where", ["images", "images/train", "images/train/n01", "cache"])
def test_a_folder_that_may_not_be_read_is_told(where: str, reachable: Path) -> None:
    (reachable / where).chmod(0)
    with (
        bound_by_permissions(),
        pytest.raises(UserError, match=r"^[^\n]*: cannot be read: Permission denied; allowed: [^\n]*$"),
    ):
        read_index(folder_dataset(reachable / "images"))
    (reachable / where).chmod(0o755)


def test_an_image_that_may_not_be_read_is_named(reachable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (reachable / "images" / "train" / "n01" / "3.JPEG").chmod(0)
    with bound_by_permissions(), pytest.raises(UserError, match="found 1 files that cannot be read"):
        index.make_index(folder_dataset(reachable / "images"))
    assert "3.JPEG: cannot be read: Permission denied; replace or remove it\n" in capsys.readouterr().err


def test_a_cache_that_may_not_be_written_is_told_unless_it_is_whole(reachable: Path) -> None:
    dataset = folder_dataset(reachable / "images", copy_side=36)
    told = pytest.raises(UserError, match=r"^[^\n]*: cannot be written: Permission denied[^\n]*$")
    (reachable / "cache").chmod(0o555)
    with bound_by_permissions(), told:
        index.make_index(dataset)
    index.make_index(dataset)
    with bound_by_permissions():
        index.make_index(dataset)
        read_index(dataset)
    (reachable / "images" / "train" / "n01" / "3.JPEG").touch()
    with bound_by_permissions(), told:
        index.make_index(dataset)

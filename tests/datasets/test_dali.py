"""Images by DALI, on the CPU: the crops of the other decoder, and its pixels to within a few levels."""

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from folders import all_batches, folder_dataset, folder_settings, write_folder
from helpers import DATA
from trained_binarization.datasets import dali
from trained_binarization.datasets.folder import read_folder
from trained_binarization.datasets.prepare import prepare
from trained_binarization.errors import UserError
from trained_binarization.study import Run, Study
from trained_binarization.training.loop import Interrupted
from trained_binarization.training.runs import train_run

CPU = torch.device("cpu")


def test_without_dali_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read_folder(folder_dataset(write_folder(tmp_path / "images"), decoder="dali"), 32)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^dataset.decoder: found 'dali', [^\n]* pip install nvidia-dali-cuda130"):
        data.trained_on(data.dataset, CPU)


installed = pytest.mark.skipif(not dali.installed(), reason="nvidia-dali is not installed")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("folder") / "images")


def images_of(root: Path, size: int = 32, **changes: Any) -> Any:
    data = read_folder(folder_dataset(root, **changes), size)
    return data.trained_on(data.dataset, CPU)


def differences(root: Path, size: int, batch: int, **changes: Any) -> np.ndarray:
    """Of an epoch's pixels, DALI's minus Pillow's."""
    both = [torch.cat(all_batches(images_of(root, size, decoder=d, **changes), batch)) for d in ("dali", "pillow")]
    assert both[0].dtype == torch.uint8
    assert both[0].shape == both[1].shape
    return (both[0].int() - both[1].int()).numpy()


@installed
@pytest.mark.parametrize("flip", [False, True])
def test_the_pixels_are_pillows_to_within_two_levels(flip: bool, root: Path) -> None:
    found = differences(root, 32, 8, flip=flip)
    assert np.abs(found).max() <= 2
    assert abs(found.mean()) < 0.05


@installed
def test_so_they_are_on_photographs(tmp_path: Path) -> None:
    imagenette_root, some = DATA / "imagenette-160", tmp_path / "images"
    if not imagenette_root.is_dir():
        pytest.skip(f"Imagenette is not here: no {imagenette_root}")
    for part, count in (("train", 40), ("val", 1)):
        for folder in sorted((imagenette_root / part).iterdir())[:3]:
            (some / part / folder.name).mkdir(parents=True)
            for path in sorted(folder.iterdir())[:count]:
                (some / part / folder.name / path.name).write_bytes(path.read_bytes())
    found = differences(some, 96, 20)
    assert np.abs(found).max() <= 8  # two decoders of JPEG
    assert np.abs(found).mean() < 0.3
    assert abs(found.mean()) < 0.05


@installed
@pytest.mark.parametrize("workers", [0, 2])
def test_the_pixels_follow_from_seed_and_epoch_alone(workers: int, root: Path) -> None:
    expected = all_batches(images_of(root, decoder="dali"), 8, seed=3, epoch=5)
    images = images_of(root, decoder="dali", workers=workers)
    assert all(map(torch.equal, all_batches(images, 8, seed=3, epoch=5, first=4), expected[4:]))
    assert all_batches(images, 8, first=9) == []
    halves = [images.batches(3, 5, 8, 0, slice(start, start + 4)) for start in (0, 4)]
    for (left, _), (right, _), whole in zip(*halves, expected, strict=True):
        assert torch.equal(torch.cat([left, right]), whole)
    labels = torch.cat([labels for _, labels in images.batches(0, 0, 8, 0, slice(None))])
    plain = images_of(root).batches(0, 0, 8, 0, slice(None))
    assert torch.equal(labels, torch.cat([labels for _, labels in plain]))


@installed
def test_odd_files_are_seen_as_pillow_sees_them(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "images", classes=1)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((80, 60), Image.Resampling.BICUBIC)
    turned = image.getexif()
    turned[0x0112] = 6  # to be shown turned by a quarter
    odd = {"CMYK": image.convert("CMYK"), "L": image.convert("L"), "P": image.convert("P"), "EXIF": image}
    odd["RGBA"] = image.convert("RGBA")
    odd["RGBA"].putalpha(image.convert("L"))
    for number, (kind, one) in enumerate(odd.items()):
        content = io.BytesIO()
        if kind in ("P", "RGBA"):
            one.save(content, "PNG")
        else:
            one.save(content, "JPEG", quality=95, **({"exif": turned} if kind == "EXIF" else {}))
        (root / "train" / "n00" / f"{number}.JPEG").write_bytes(content.getvalue())
    found = differences(root, 32, 24, flip=False)
    assert np.abs(found).max() <= 3


@installed
@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_went_bad_since_is_named(workers: int, tmp_path: Path) -> None:
    images = images_of(write_folder(tmp_path / "images"), decoder="dali", workers=workers)
    bad = images.index.path(7)
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(UserError, match=f"^{bad}: SHA-256: found [^\n]* prepare --again$"):
        all_batches(images, 8)


@installed
def test_a_training_goes_on_with_the_same_pixels(root: Path, tmp_path: Path) -> None:
    study = Study.model_validate(folder_settings(root, decoder="dali"))
    run = Run(network="resnet18", variant="full_precision", seed=0)
    for folder in ("whole", "stopped"):
        prepare(study, tmp_path / folder)
    whole, _ = train_run(study, run, tmp_path / "whole")
    assert any(name.startswith("nvidia-dali") for name in whole.packages)
    for _ in range(10):  # nine batches an epoch; the tenth stop is before the epoch's evaluation, or in it
        with pytest.raises(Interrupted):
            train_run(study, run, tmp_path / "stopped", deadline=time.monotonic() - 1)
    stopped, _ = train_run(study, run, tmp_path / "stopped")
    assert (stopped.interruptions, stopped.weights_sha256) == (10, whole.weights_sha256)

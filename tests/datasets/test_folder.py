"""Images from a folder: torchvision's crops, the same pixels whatever the workers, evaluation as the field has it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from folders import all_batches, folder_dataset, folder_settings, write_folder
from helpers import command, started, write_params
from trained_binarization.datasets import dali
from trained_binarization.datasets.batches import RandomCrop
from trained_binarization.datasets.folder import read_folder
from trained_binarization.errors import UserError
from trained_binarization.records import fingerprint
from trained_binarization.study import Run, Study

CPU = torch.device("cpu")
needs_dali = pytest.mark.skipif(not dali.installed(), reason="nvidia-dali is not installed")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("folder") / "images")


def test_an_epoch_is_every_image_once_in_an_order_of_its_own(root: Path) -> None:
    data = read_folder(folder_dataset(root), 32)
    images = data.trained_on(data.dataset, CPU)
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        labels = torch.cat([labels for _, labels in images.batches(seed, epoch, 8, 0, slice(None))])
        assert torch.bincount(labels).tolist() == [24, 24, 24]
        orders.append(labels.tolist())
    assert orders[0] != orders[1] != orders[2] != orders[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_pixels_follow_from_seed_and_epoch_alone(workers: int, root: Path) -> None:
    # Not from the workers, the batch that is begun with, what ran before, or how many processes share a batch.
    first = read_folder(folder_dataset(root), 32)
    expected = all_batches(first.trained_on(first.dataset, CPU), 8, seed=3, epoch=5)
    torch.manual_seed(99)
    data = read_folder(folder_dataset(root, workers=workers), 32)
    images = data.trained_on(data.dataset, CPU)
    assert all(map(torch.equal, all_batches(images, 8, seed=3, epoch=5, first=4), expected[4:]))
    assert all_batches(images, 8, first=9) == []
    halves = [images.batches(3, 5, 8, 0, slice(start, start + 4)) for start in (0, 4)]
    for (left, _), (right, _), whole in zip(*halves, expected, strict=True):
        assert torch.equal(torch.cat([left, right]), whole)
    other = all_batches(images, 8, seed=3, epoch=6)
    assert not torch.equal(other[0], expected[0])


def test_crops_have_torchvisions_distribution() -> None:
    # An image whose pixels tell where they are: x in red, y in green.
    y, x = np.mgrid[:120, :160].astype(np.uint8)
    image = Image.fromarray(np.stack([x, y, 0 * x], axis=2))
    ours = RandomCrop(16, 0.2, flip=True)
    stock = transforms.Compose([transforms.RandomResizedCrop(16, (0.2, 1.0)), transforms.RandomHorizontalFlip()])
    for seed in range(50):
        torch.manual_seed(seed)
        mine = np.asarray(ours(image), dtype=int)
        torch.manual_seed(seed)
        theirs = np.asarray(stock(image), dtype=int)
        # The same crop; at its edge ours sees the neighbours that cropping first cuts off.
        assert np.abs(mine - theirs)[1:-1, 1:-1].max() <= 1
        assert np.abs(mine - theirs).max() <= 8


def test_evaluation_is_the_fields(root: Path) -> None:
    data = read_folder(folder_dataset(root), 32)
    scored = data.scored(0, CPU)
    stock = transforms.Compose([transforms.Resize(40), transforms.CenterCrop(32)])
    seen = 0
    for pixels, labels in scored.batches(5):
        for image, label in zip(pixels, labels.tolist(), strict=True):
            path = data.test.path(seen)
            assert path.parent.name == data.classes[label]
            assert np.array_equal(image.numpy(), np.asarray(stock(Image.open(path).convert("RGB"))))
            seen += 1
    assert seen == len(scored) == 24


def test_processes_share_the_scored_images(root: Path) -> None:
    data = read_folder(folder_dataset(root), 32)
    scored = data.scored(0, CPU)
    whole = [pixels for pixels, _ in scored.batches(5)]
    shares = [[pixels for pixels, _ in scored.batches(5, rank, 2)] for rank in range(2)]
    assert [len(share) for share in shares] == [3, 2]
    assert all(map(torch.equal, shares[0], whole[::2]))
    assert all(map(torch.equal, shares[1], whole[1::2]))


def test_images_held_out_for_tuning_are_trained_on_by_nobody(root: Path) -> None:
    data = read_folder(folder_dataset(root, validation=20), 32)
    trained_on, scored = data.trained_on(data.dataset, CPU), data.scored(20, CPU)
    assert (len(trained_on), len(scored)) == (52, 20)
    names = [{bytes(name) for name in part.index.names} for part in (trained_on, scored)]
    assert not names[0] & names[1]
    assert {bytes(name) for name in data.train.names} == names[0] | names[1]
    assert len(set(scored.index.labels.tolist())) == 3  # not the last classes


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_went_bad_since_is_named(workers: int, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "images")
    data = read_folder(folder_dataset(tmp_path / "images", workers=workers), 32)
    bad = data.train.path(7)
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(UserError, match=f"^{bad}: SHA-256: found [^\n]* prepare --again$"):
        all_batches(data.trained_on(data.dataset, CPU), 8)
    bad.unlink()
    with pytest.raises(UserError, match=f"^{bad}: cannot be read: No such file"):
        all_batches(data.trained_on(data.dataset, CPU), 8)


def test_what_is_read_stands_in_the_fingerprint_but_not_where_it_lies_or_how_it_is_read(root: Path) -> None:
    run = Run(network="resnet18", variant="full_precision", seed=0)

    def of(**changes: object) -> str:
        return fingerprint(Study.model_validate(folder_settings(root, **changes)), run, "checksum")

    for same in ({"root": "elsewhere"}, {"cache": "elsewhere"}, {"workers": 3}):
        assert of(**same) == of()
    changes = {"validation": 9, "copy_side": 64, "image_size": {"resnet18": 40}, "resize": 48, "least_area": 0.1}
    others = {of(**{key: value}) for key, value in changes.items()}
    others |= {of(flip=False), of(name="imagenet"), of(decoder="dali")}
    assert len(others | {of()}) == len(changes) + 4
    # Another network's size is not this run's.
    both = folder_settings(root, image_size={"resnet18": 32, "alexnet": 40})
    both |= {"networks": ["resnet18", "alexnet"]}
    both["architecture"]["alexnet"] = {"width": 0.1}
    assert fingerprint(Study.model_validate(both), run, "checksum") == of()


OPEN = """
import sys, torch
from folders import folder_dataset
from pathlib import Path
from trained_binarization.datasets import batches
from trained_binarization.datasets.folder import read_folder
batches.GRACE = 1
data = read_folder(folder_dataset(Path(sys.argv[1]), workers=2, decoder=sys.argv[2]), 32)
left_open = data.trained_on(data.dataset, torch.device("cpu")).batches(0, 0, 8, 0, slice(None))
next(left_open)
print("ends")
"""


@pytest.mark.parametrize("decoder", ["pillow", pytest.param("dali", marks=needs_dali)])
def test_a_python_that_exits_with_its_loader_open_ends(decoder: str, root: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(root), decoder], timeout=60, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    write_params(folder / "params.yaml", folder_settings(root))
    outcome = command("run", folder=folder)
    assert outcome.status == 0, outcome.err
    return folder


RUNS = Path("results", "photographs", "runs", "resnet18")


def test_a_study_of_a_folder_is_trained_and_scored_with_top_5(trained: Path) -> None:
    import json

    for variant in ("full_precision", "method"):
        record = json.loads((trained / RUNS / variant / "seed0" / "record.json").read_text(encoding="utf-8"))
        assert (record["images_trained_on"], record["images_scored"], record["scored"]) == (72, 24, "test")
        assert record["last"]["top5"] == 100.0  # of three classes
        header = (trained / RUNS / variant / "seed0" / "history.csv").read_text(encoding="utf-8").splitlines()[0]
        assert "evaluation_top5" in header.split(",")
    again = command("evaluate", "--network", "resnet18", "--seed", "0", folder=trained)
    assert again.status == 0
    assert "agrees" in again.out


@pytest.mark.parametrize("workers", [0, 1])
def test_stopped_in_the_middle_of_an_epoch_it_ends_with_the_same_weights(
    workers: int, root: Path, trained: Path, tmp_path: Path
) -> None:
    settings = folder_settings(root, workers=workers)
    settings["pretrain"]["epochs"] = 40
    write_params(tmp_path / "params.yaml", settings)
    process = started("run", folder=tmp_path)
    assert process.stdout is not None
    next(line for line in process.stdout if "epoch 2/" in line)
    os.kill(process.pid, signal.SIGTERM)
    began = time.monotonic()
    output = process.communicate(timeout=60)[0]
    assert time.monotonic() - began < 10
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "nothing lost" in output
    assert command("run", folder=tmp_path).status == 0
    # And in one go.
    whole = tmp_path / "whole"
    write_params(whole / "params.yaml", settings)
    assert command("run", folder=whole).status == 0
    for variant in ("full_precision", "method"):
        path = RUNS / variant / "seed0" / "weights.safetensors"
        assert (tmp_path / path).read_bytes() == (whole / path).read_bytes()

"""The fixed views of the scored images."""

from pathlib import Path

import pytest
import torch

from folders import folder_dataset, write_folder
from trained_binarization.datasets.folder import read_folder
from trained_binarization.datasets.views import corners, mirrored, shifted

IMAGES = torch.randint(256, (3, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_first_view_is_the_image_itself() -> None:
    assert torch.equal(shifted(IMAGES, 4, True)[0], IMAGES)


def test_ten_different_views() -> None:
    views = shifted(IMAGES, 4, True)
    assert len(views) == 10
    assert len({view.numpy().tobytes() for view in views}) == 10
    assert {view.shape for view in views} == {IMAGES.shape}


def test_a_shift_moves_the_image_and_fills_with_black() -> None:
    _, down, up, right, left = shifted(IMAGES, 4, False)
    assert torch.equal(down[:, :-2], IMAGES[:, 2:])
    assert torch.equal(up[:, 2:], IMAGES[:, :-2])
    assert torch.equal(right[:, :, :-2], IMAGES[:, :, 2:])
    assert torch.equal(left[:, :, 2:], IMAGES[:, :, :-2])
    assert not down[:, -2:].any()
    assert not up[:, :2].any()
    assert not right[:, :, -2:].any()
    assert not left[:, :, :2].any()


def test_no_shift_beyond_the_padding_of_training() -> None:
    assert torch.equal(shifted(IMAGES, 1, False)[1][:, :-1], IMAGES[:, 1:])
    assert [torch.equal(view, IMAGES) for view in shifted(IMAGES, 0, False)] == [True]


def test_corners_and_their_mirror_images() -> None:
    centre, *four = corners(IMAGES, 6)
    assert torch.equal(centre, IMAGES[:, 1:7, 1:7])
    assert torch.equal(four[0], IMAGES[:, :6, :6])
    assert torch.equal(four[3], IMAGES[:, 2:, 2:])
    assert torch.equal(mirrored([centre])[1], IMAGES[:, 1:7, 1:7].flip(2))


@pytest.mark.parametrize("flip", [True, False])
def test_views_of_a_folder_begin_with_what_plain_accuracy_scores(flip: bool, tmp_path: Path) -> None:
    dataset = folder_dataset(write_folder(tmp_path / "images"), flip=flip)
    images = read_folder(dataset, 32)
    plain = torch.cat([batch for batch, _ in images.scored(0, torch.device("cpu")).batches(250)])
    seen = images.views(dataset, torch.device("cpu"))
    views, labels = map(torch.cat, zip(*seen.batches(250), strict=True))
    count = 10 if flip else 5
    assert len(views) == len(seen) == len(labels) == count * len(plain)
    assert torch.equal(views[::count], plain)
    assert torch.equal(labels[::count], images.test.labels)

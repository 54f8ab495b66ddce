"""Augmentation: the same draws for the same seed and epoch, exact crops of the padded images, uniform offsets."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from trained_binarization.datasets.augment import Augmentation, channel_statistics, normalise


def pictures(count: int = 20, size: int = 8) -> Tensor:
    """uint8 images of noise that are never 0, so that padding can be told from image."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (count, size, size, 3), generator=generator, dtype=torch.uint8)


def test_draws_depend_on_seed_and_epoch_alone() -> None:
    first = Augmentation(pictures(), padding=2, flip=True)
    second = Augmentation(pictures(), padding=2, flip=True)
    torch.manual_seed(1)
    drawn = first.draw(3, 5)
    torch.manual_seed(2)
    second.draw(9, 9)
    assert torch.equal(second.draw(3, 5), drawn)
    assert not torch.equal(first.draw(3, 6), drawn)
    assert not torch.equal(first.draw(4, 5), drawn)


def test_drawing_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    Augmentation(pictures(), padding=2, flip=True).draw(0, 0)
    assert torch.equal(torch.rand(3), expected)


def test_no_two_epochs_of_a_study_share_their_draws() -> None:
    augmentation = Augmentation(pictures(50), padding=2, flip=True)
    orders = {tuple(augmentation.draw(seed, epoch)[0].tolist()) for seed in range(5) for epoch in range(40)}
    assert len(orders) == 200


def test_every_image_once_an_epoch() -> None:
    augmentation = Augmentation(pictures(101), padding=1, flip=True)
    for epoch in range(5):
        assert sorted(augmentation.draw(0, epoch)[0].tolist()) == list(range(101))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_each_image_is_an_exact_crop_of_the_padded_image(padding: int, flip: bool) -> None:
    images = pictures()
    augmentation = Augmentation(images, padding=padding, flip=flip)
    choices = augmentation.draw(7, 3)
    batch = augmentation.batch(choices)
    assert batch.shape == (20, 3, 8, 8)
    assert batch.dtype == torch.float32
    mean, std = channel_statistics(images)
    flips = 0
    for result, (index, top, left, flipped) in zip(batch, choices.T.tolist(), strict=True):
        padded = np.zeros((8 + 2 * padding, 8 + 2 * padding, 3), dtype=np.uint8)
        padded[padding : padding + 8, padding : padding + 8] = images[index].numpy()
        crop = padded[top : top + 8, left : left + 8]
        crop = crop[:, ::-1] if flipped else crop
        flips += flipped
        back = (result.permute(1, 2, 0) * std + mean).round()
        np.testing.assert_array_equal(back.numpy(), crop)
        exact = (crop - mean.double().numpy()) / std.double().numpy()
        np.testing.assert_allclose(result.permute(1, 2, 0).numpy(), exact, rtol=1e-5, atol=1e-6)
    assert 0 < flips < 20 if flip else flips == 0


def test_without_padding_and_flip_nothing_changes_but_the_order() -> None:
    images = pictures()
    augmentation = Augmentation(images, padding=0, flip=False)
    choices = augmentation.draw(0, 0)
    expected = normalise(images[choices[0]], *channel_statistics(images))
    assert torch.equal(augmentation.batch(choices), expected)


@pytest.mark.parametrize("side", [1, 2, 3, 6])
def test_cutout_blanks_one_square_and_leaves_the_rest_alone(side: int) -> None:
    images = pictures(400)
    plain = Augmentation(images, padding=2, flip=True)
    cut = Augmentation(images, padding=2, flip=True, cutout=side)
    choices = cut.draw(0, 0)
    assert torch.equal(choices[:4], plain.draw(0, 0))
    before, after = plain.batch(choices[:4]), cut.batch(choices)
    assert before.abs().min() > 0  # no value is the mean's, so blank can be told
    blank = (after == 0).all(1)
    assert torch.equal(after, before.masked_fill(blank[:, None], 0))
    for one, row, column in zip(blank, *choices[4:].tolist(), strict=True):
        expected = torch.zeros(8, 8, dtype=torch.bool)
        top, left = row - side // 2, column - side // 2
        expected[max(top, 0) : top + side, max(left, 0) : left + side] = True
        assert torch.equal(one, expected)
    centres = torch.bincount(choices[4] * 8 + choices[5], minlength=64)
    assert chisquare(centres.numpy()).pvalue > 0.001


def test_offsets_and_flips_are_uniform() -> None:
    augmentation = Augmentation(pictures(9000, 4), padding=4, flip=True)
    _, top, left, flip = augmentation.draw(0, 0)
    assert (top.min(), top.max(), left.min(), left.max()) == (0, 8, 0, 8)
    cells = torch.bincount(top * 9 + left, minlength=81)
    assert chisquare(cells.numpy()).pvalue > 0.001  # all 81 crops alike, so top and left are independent too
    assert chisquare(torch.bincount(flip, minlength=2).numpy()).pvalue > 0.001
    assert chisquare(torch.bincount(flip * 81 + top * 9 + left, minlength=162).numpy()).pvalue > 0.001


def test_a_batch_is_its_columns_of_the_epochs_choices() -> None:
    augmentation = Augmentation(pictures(), padding=2, flip=True)
    choices = augmentation.draw(0, 0)
    whole = augmentation.batch(choices)
    assert torch.equal(augmentation.batch(choices[:, 6:11]), whole[6:11])


def test_channel_statistics_against_numpy() -> None:
    images = pictures(50)
    images[..., 1] //= 2
    mean, std = channel_statistics(images)
    assert mean.dtype == std.dtype == torch.float32
    values = images.numpy().astype("float64").reshape(-1, 3)
    np.testing.assert_allclose(mean.numpy(), values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std.numpy(), values.std(0), rtol=1e-6)


def test_normalise_against_float64() -> None:
    images = pictures(50)
    mean, std = channel_statistics(images)
    result = normalise(images, mean, std)
    assert result.shape == (50, 3, 8, 8)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    exact = (images.double().numpy() - mean.double().numpy()) / std.double().numpy()
    np.testing.assert_allclose(result.numpy(), exact.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-6)
    assert result.mean((0, 2, 3)).abs().max() < 1e-4
    assert (result.std((0, 2, 3)) - 1).abs().max() < 1e-3


def test_statistics_are_those_of_the_training_images_without_padding() -> None:
    images = pictures(50)
    for padding in (0, 4):
        augmentation = Augmentation(images, padding=padding, flip=True)
        np.testing.assert_allclose(augmentation.mean.numpy(), images.double().mean((0, 1, 2)).numpy(), rtol=1e-6)

"""The fast path means the plain one: augmentation, gradients, and sums of products of bits, within the precision."""

import shutil
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from trained import trainer

from trained_binarization.binarization.layers import BinaryConv2d
from trained_binarization.binarization.method import Method
from trained_binarization.datasets.augment import Augmentation
from trained_binarization.training.loop import evaluate

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile needs a C++ compiler: g++ is not here"
)


def test_augmentation_has_torchvisions_distribution() -> None:
    # One image whose every pixel is its own colour, so each result names its crop: 9 x 9 offsets, two orientations.
    image = torch.arange(64, dtype=torch.uint8).view(8, 8, 1).expand(8, 8, 3).contiguous() + 1
    count = 40_000
    transform = transforms.Compose([transforms.RandomCrop(8, 4), transforms.RandomHorizontalFlip()])
    torch.manual_seed(0)
    pil = Image.fromarray(image.numpy())
    stock = [bytes(transform(pil).tobytes()) for _ in range(count)]
    ours = Augmentation(image[None].expand(count, -1, -1, -1), padding=4, flip=True)
    ours.mean, ours.std = torch.zeros(3), torch.ones(3)
    choices = ours.draw(0, 0)
    batches = [ours.batch(part).permute(0, 2, 3, 1).to(torch.uint8) for part in choices.split(1000, 1)]
    fast = [bytes(crop.numpy().tobytes()) for batch in batches for crop in batch]
    assert set(fast) == set(stock)  # the same 162 results, none more
    assert len(set(fast)) == 162
    index = {crop: number for number, crop in enumerate(sorted(set(stock)))}
    counts = torch.zeros(2, 162, dtype=torch.float64)
    for row, crops in enumerate((fast, stock)):
        for crop in crops:
            counts[row, index[crop]] += 1
    # Chi-square for equal distributions, 161 degrees of freedom: mean 161, standard deviation 18.
    statistic = ((counts[0] - counts[1]) ** 2 / counts.sum(0)).sum().item()
    assert statistic < 161 + 5 * 18


def gradients(method: Method | None, **compute: Any) -> dict[str, Tensor]:
    """The gradients of the first batch at the start of training."""
    one = trainer(method, 64, **compute)
    one.objective(*next(one.epoch()))[0].backward()
    return {name: p.grad.double() for name, p in one.network.named_parameters() if p.grad is not None and p.dim() > 1}


@needs_compiler
@pytest.mark.parametrize(
    ("method", "least"),
    [
        (None, 1 - 1e-6),
        # A binary network's gradient jumps where rounding breaks a tie of max-pool otherwise.
        (Method(), 0.9),
    ],
    ids=["full precision", "method"],
)
def test_compiled_channels_last_gradients_are_the_plain_ones(method: Method | None, least: float) -> None:
    plain = gradients(method, channels_last=False, compile=False)
    fast = gradients(method, channels_last=True, compile=True)
    assert plain.keys() == fast.keys()
    for name, gradient in plain.items():
        similarity = torch.cosine_similarity(gradient.flatten(), fast[name].flatten(), 0).item()
        assert similarity > least, name
        assert fast[name].norm().item() == pytest.approx(gradient.norm().item(), rel=1e-4 if method is None else 0.1)


def test_bfloat16_gradients_of_full_precision_are_float32s_within_its_tolerance() -> None:
    plain = gradients(None, channels_last=False, autocast="none")
    fast = gradients(None, channels_last=True, autocast="bfloat16")
    for name, gradient in plain.items():
        assert torch.cosine_similarity(gradient.flatten(), fast[name].flatten(), 0).item() > 0.9, name


def through(layer: BinaryConv2d, x: Tensor, gradient: Tensor, autocast: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(output, input's gradient, latent weight's gradient)."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = layer(x)
    output.backward(gradient.to(output.dtype))
    assert x.grad is not None
    assert layer.weight.grad is not None
    return output.detach().double(), x.grad.double(), layer.weight.grad.double().clone()


@pytest.mark.parametrize("values", ["zero_one", "plus_minus_one"])
def test_a_binary_convolution_in_bfloat16_is_float32s_within_its_tolerance(values: Any) -> None:
    # One layer, the same input: through a whole network single bits that flip would add up.
    torch.manual_seed(0)
    layer = BinaryConv2d(64, 32, 3, padding=1, method=Method(activation_values=values))
    x, gradient = torch.randn(8, 64, 10, 10), torch.randn(8, 32, 10, 10)
    plain, fast = (through(layer, x, gradient, autocast) for autocast in (False, True))
    # Sums are accumulated in float32; two roundings to 8 bits, of the factor and of the sum.
    torch.testing.assert_close(fast[0], plain[0], rtol=2 * 2**-8, atol=1e-4)
    for ours, theirs in zip(fast[1:], plain[1:], strict=True):
        assert torch.cosine_similarity(ours.flatten(), theirs.flatten(), 0).item() > 0.9999


def all_equal(channels: int) -> tuple[BinaryConv2d, Tensor]:
    """A convolution all of whose products are one, without factors; its input."""
    layer = BinaryConv2d(channels, 8, 3, method=Method(activation_scaling="none", weight_scaling="none"))
    with torch.no_grad():
        layer.weight.fill_(0.5)
    return layer, torch.ones(1, channels, 5, 5)


@pytest.mark.parametrize("channels", [28, 29, 100, 256, 512])
def test_sums_of_equal_products_are_exact_in_float32(channels: int) -> None:
    # What evaluation computes with: the worst case, 4,608 at VGG-Small's widest.
    layer, x = all_equal(channels)
    with torch.no_grad():
        assert (layer(x) == 9 * channels).all()
        layer.weight.view(-1)[0] = -0.5  # one product of the first channel the other way: two less
        assert (layer(x)[0, 0] == 9 * channels - 2).all()
        assert (layer(x)[0, 1:] == 9 * channels).all()


@pytest.mark.parametrize("channels", [28, 29, 100, 256, 512])
def test_sums_of_equal_products_in_bfloat16_are_rounded_once(channels: int) -> None:
    # Accumulated in bfloat16 they would stop growing at 256, where adding one is lost.
    layer, x = all_equal(channels)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
    assert found.dtype == torch.bfloat16
    assert (found == torch.tensor(9.0 * channels).bfloat16()).all()


def test_evaluation_is_in_float32_whatever_the_training_is() -> None:
    one = trainer(Method(), 64, autocast="bfloat16")
    kinds: list[torch.dtype] = []
    one.network.register_forward_hook(lambda _, inputs, output: kinds.append(output.dtype))
    one.network.eval()
    evaluate(one.network, one.scored, *one.images.statistics)
    assert set(kinds) == {torch.float32}

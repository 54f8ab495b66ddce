"""The library as somebody else's code uses it: public names, PyTorch's conventions, torch.hub, an installed wheel."""

import copy
import doctest
import importlib
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import trained_binarization
from helpers import REPOSITORY
from trained_binarization import BinaryActivation, BinaryConv2d, BinaryLinear, Method, build, list_networks

SIGNED = Method(activation_values="plus_minus_one")
PLAIN = {"activation_scaling": "none", "weight_scaling": "none"}


@pytest.mark.parametrize("name", ["", ".binarization.layers", ".binarization.method"])
def test_the_examples_in_docstrings_hold(name: str) -> None:
    torch.manual_seed(0)
    found = doctest.testmod(importlib.import_module(f"trained_binarization{name}"))
    assert found.attempted > 0
    assert found.failed == 0


def test_every_public_name_is_there() -> None:
    assert all(getattr(trained_binarization, name) for name in trained_binarization.__all__)
    assert set(trained_binarization.__all__) <= set(dir(trained_binarization))
    with pytest.raises(AttributeError, match="no_such"):
        _ = trained_binarization.no_such


def test_importing_the_package_imports_neither_torch_nor_the_replications_packages() -> None:
    heavy = ("torch", "pydantic", "ruamel", "pandas", "typer")
    program = f"import sys, trained_binarization; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("method", [Method(**PLAIN), Method(activation_values="plus_minus_one", **PLAIN)], ids=str)
@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_size": 3},
        {"kernel_size": (1, 3), "stride": (2, 1), "padding": (0, 1)},
        {"kernel_size": 3, "padding": "same", "dilation": 2},
        {"kernel_size": 3, "padding": "valid"},
        {"kernel_size": 2, "padding": 1, "groups": 4},
        {"kernel_size": 3, "groups": 2, "dilation": (1, 2), "padding": 2, "dtype": torch.float64},
    ],
    ids=str,
)
def test_a_binary_convolution_takes_what_pytorchs_takes(arguments: dict[str, Any], method: Method) -> None:
    """Its output is that of nn.Conv2d with the binary weights, on binarized images padded with the low bit."""
    layer = BinaryConv2d(8, 12, method=method, **arguments)
    plain = nn.Conv2d(8, 12, bias=False, **arguments)
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"):
        assert getattr(layer, name) == getattr(plain, name), name
    assert layer.weight.shape == plain.weight.shape
    assert layer.weight.dtype == plain.weight.dtype
    x = torch.randn(2, 8, 9, 9, dtype=plain.weight.dtype)
    low = layer.activation.lowest
    bits = torch.where(x > 0, 1.0, low).to(x.dtype)
    with torch.no_grad():
        plain.weight.copy_(torch.where(layer.weight >= 0, 1.0, -1.0))
    # conv(pad(bits, low)) = conv0(bits - low) + low * (sum of each filter's weights)
    expected = plain(bits - low) + low * plain.weight.sum((1, 2, 3))[:, None, None]
    assert torch.allclose(layer(x), expected)


def test_a_binary_product_takes_what_pytorchs_takes() -> None:
    layer = BinaryLinear(8, 3, method=Method(**PLAIN), dtype=torch.float64)
    assert (layer.in_features, layer.out_features, layer.bias) == (8, 3, None)
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    assert torch.equal(layer(x), F.linear((x > 0).double(), torch.where(layer.weight >= 0, 1.0, -1.0).double()))


@pytest.mark.parametrize("method", [Method(), SIGNED, Method(weight_scaling_granularity="channel")], ids=str)
def test_state_and_copies_and_devices(method: Method) -> None:
    """A layer's state goes into a new layer; a copy computes the same; on `meta` it has shapes alone."""
    x = torch.randn(2, 4, 6, 6)
    layer = BinaryConv2d(4, 6, 3, method=method)
    other = BinaryConv2d(4, 6, 3, method=method)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    shapes = BinaryConv2d(4, 6, 3, method=method, device="meta")
    assert all(tensor.is_meta for tensor in shapes.state_dict().values())
    assert {k: v.shape for k, v in shapes.state_dict().items()} == {k: v.shape for k, v in layer.state_dict().items()}
    assert shapes(x.to("meta")).shape == layer(x).shape


def test_what_a_layer_says_of_itself() -> None:
    assert repr(BinaryActivation()) == "BinaryActivation()"
    assert repr(BinaryActivation(SIGNED)) == "BinaryActivation(activation_values=plus_minus_one)"
    text = repr(BinaryLinear(4, 2, method=Method(latent_std=None)))
    assert text.startswith("BinaryLinear(\n  in_features=4, out_features=2, latent_std=None\n")


def test_networks_by_name() -> None:
    assert list_networks() == ["alexnet", "resnet18", "vgg_small"]
    network = build("vgg_small", Method(), image_size=32, classes=7, width=0.25)
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    with pytest.raises(ValueError, match="found 'vgg'; allowed: alexnet, resnet18, vgg_small"):
        build("vgg", None, image_size=32, classes=10)


def test_torch_hub_from_the_folder() -> None:
    load = partial(torch.hub.load, str(REPOSITORY), "vgg_small", source="local", width=0.25)
    network = load(classes=5)
    assert network(torch.randn(1, 3, 32, 32)).shape == (1, 5)
    assert any(isinstance(layer, BinaryConv2d) for layer in network.modules())
    assert not any(isinstance(layer, BinaryConv2d) for layer in load(method=None).modules())


def test_a_wheel_works_outside_of_the_repository(tmp_path: Path) -> None:
    """Installed beside this environment's packages, into an environment of its own."""
    source = tmp_path / "source"  # a copy, since setuptools leaves a folder `build` beside what it builds
    shutil.copytree(REPOSITORY / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(REPOSITORY / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build_wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(build_wheel, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True, capture_output=True)
    program = (
        "import torch, trained_binarization as tb\n"
        "print(tb.__file__, tb.build('vgg_small', tb.Method(), 32, 10, width=0.25)(torch.ones(1, 3, 32, 32)).shape)"
    )
    environment = {"PYTHONPATH": str(target), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(target))
    assert (target / "trained_binarization" / "py.typed").exists()
    assert any((target / "trained_binarization" / "evidence").glob("*.jinja"))

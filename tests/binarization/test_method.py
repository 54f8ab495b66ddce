"""Method: a plain value that checks itself, and the same faults as lines of a study file."""

import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from helpers import small_settings, write_params
from trained_binarization.binarization.method import Method
from trained_binarization.errors import UserError
from trained_binarization.study import load_study

FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"activation_values": "two"}, "activation_values: found 'two'; allowed: 'zero_one', 'plus_minus_one'"),
    ({"weight_scaling": None}, "weight_scaling: found None; allowed: 'trained', 'frozen', 'analytic', 'none'"),
    ({"weight_scaling_granularity": ["layer"]}, "found ['layer']; allowed: 'layer', 'channel'"),
    ({"initialization": True}, "initialization: found True; allowed: 'pretrained', 'scratch'"),
    ({"weight_estimator": "ste"}, "weight_estimator: found 'ste'; allowed: 'identity', 'clipped_ste'"),
    ({"activation_estimator": 3}, "activation_estimator: found 3; allowed: 'identity'"),
    ({"weight_scaling_l2": -1e-9}, "weight_scaling_l2: found -1e-09; allowed: a number at least 0 and at most 1e+30"),
    ({"weight_scaling_l2": "1e-4"}, "weight_scaling_l2: found '1e-4'; allowed: a number"),
    ({"weight_scaling_l2": True}, "weight_scaling_l2: found True; allowed: a number"),
    ({"weight_scaling_l2": None}, "weight_scaling_l2: found None; allowed: a number"),
    ({"weight_scaling_l2": float("nan")}, "weight_scaling_l2: found nan; allowed: a number"),
    ({"weight_scaling_l2": float("inf")}, "weight_scaling_l2: found inf; allowed: a number"),
    ({"weight_scaling_l2": 1e31}, "weight_scaling_l2: found 1e+31; allowed: a number at least 0 and at most 1e+30"),
    ({"latent_std": 0}, "latent_std: found 0; allowed: a number above 0 and at most 1e+30"),
    ({"latent_std": "0.5"}, "latent_std: found '0.5'; allowed: a number"),
    (
        {"activation_window": "alpha", "activation_scaling": "none"},
        "activation_window: found 'alpha' with activation_scaling 'none'; allowed: 'absolute'",
    ),
]


@pytest.mark.parametrize(("switches", "message"), FAULTS, ids=str)
def test_a_value_that_a_switch_does_not_have_is_refused(switches: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="found") as told:
        Method(**switches)
    assert message in str(told.value)


@pytest.mark.parametrize("place", ["method", "variants.no_l2"])
@pytest.mark.parametrize(
    ("switches", "message"),
    [
        *FAULTS,
        ({"weight_scalling": "none"}, "weight_scalling: unknown key; allowed: only keys that the schema has"),
    ],
    ids=str,
)
def test_a_study_tells_the_same_fault_in_one_line(
    place: str, switches: dict[str, Any], message: str, tmp_path: Path
) -> None:
    changes = {"method": switches} if place == "method" else {"variants": {"no_l2": switches}}
    path = write_params(tmp_path / "params.yaml", small_settings(**changes))
    with pytest.raises(UserError) as told:
        load_study(path)
    assert message in str(told.value)
    assert str(told.value).startswith(f"{path}: {place}.")
    assert str(told.value).isprintable()


@pytest.mark.parametrize("content", [None, "method", 3, ["long_tailed"]], ids=repr)
def test_what_is_no_mapping_is_no_method(content: Any, tmp_path: Path) -> None:
    path = write_params(tmp_path / "params.yaml", small_settings() | {"method": content})
    with pytest.raises(UserError, match=r"params\.yaml: method: found .*; allowed: a mapping"):
        load_study(path)


def test_a_whole_number_is_the_same_value_as_with_a_fraction() -> None:
    """A record's settings are compared as text, where 0 and 0.0 differ."""
    assert repr(Method(weight_scaling_l2=0, latent_std=1)) == repr(Method(weight_scaling_l2=0.0, latent_std=1.0))


def test_it_is_a_value() -> None:
    assert Method() == Method(latent_std=0.5) != Method(latent_std=None)
    assert len({Method(), Method(latent_std=0.5)}) == 1
    with pytest.raises(FrozenInstanceError):
        Method().latent_std = 1.0  # type: ignore[misc]
    assert all(field.default is not None or field.name == "latent_std" for field in fields(Method))


def test_the_library_is_imported_without_the_replications_packages() -> None:
    program = (
        "import sys; import trained_binarization.networks, trained_binarization.binarization.layers\n"
        "assert 'torch' in sys.modules\n"
        "print([name for name in ('pydantic', 'ruamel', 'pandas', 'typer', 'PIL') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr

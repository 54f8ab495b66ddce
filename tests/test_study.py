"""Studies: every committed one is whole and says everything; runs, parents, variants."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from helpers import REPOSITORY, small_settings, small_study, write_params
from trained_binarization.binarization.method import Method
from trained_binarization.errors import UserError
from trained_binarization.settings import read_yaml
from trained_binarization.study import FULL_PRECISION, METHOD, Run, Study, load_study

STUDIES = sorted((REPOSITORY / "studies").glob("*.yaml"))


def missing_keys(model: type[BaseModel], content: dict[str, Any], before: str = "") -> list[str]:
    """The schema's keys that a file does not state, at every depth."""
    missing = []
    for key, field in model.model_fields.items():
        name = field.alias or key
        if name not in content:
            missing.append(before + name)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            missing += missing_keys(field.annotation, content[name], f"{before}{name}.")
    return missing


def test_there_are_studies() -> None:
    assert "quick" in [path.stem for path in STUDIES]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_is_valid_and_states_every_key(path: Path) -> None:
    study = load_study(path)
    assert study.study == path.stem
    content = read_yaml(path)
    assert missing_keys(Study, content) == []
    runs = [str(run) for run in study.runs()]
    assert len(runs) == len(set(runs))
    for run in study.runs():
        parent = study.parent(run)
        assert parent is None or runs.index(str(parent)) < runs.index(str(run))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_has_the_method_as_it_is_fixed(path: Path) -> None:
    assert load_study(path).method == Method()


def test_the_methods_defaults_are_those_of_the_documentation() -> None:
    assert asdict(Method()) == {
        "activation_values": "zero_one",
        "activation_estimator": "long_tailed",
        "activation_window": "absolute",
        "activation_scaling": "trained",
        "weight_estimator": "long_tailed",
        "weight_scaling": "trained",
        "weight_scaling_granularity": "layer",
        "weight_scaling_l2": 1e-4,
        "latent_std": 0.5,
        "initial_alpha": "data",
        "initialization": "pretrained",
    }


def test_params_is_one_of_the_studies_byte_for_byte() -> None:
    params = (REPOSITORY / "params.yaml").read_bytes()
    assert params in [path.read_bytes() for path in STUDIES]


def test_runs_are_in_order_of_worth() -> None:
    study = small_study(seeds={"pretrain": [2, 0, 1], "finetune": [2, 0], "ablate": [2, 0]})
    assert [str(run).removeprefix("vgg_small/") for run in study.runs()] == [
        "full_precision/seed2",
        "full_precision/seed0",
        "full_precision/seed1",
        "method/seed2",
        "method/seed0",
        "no_l2/seed2",
        "no_l2/seed0",
        "from_scratch/seed2",
        "from_scratch/seed0",
    ]


def test_parents() -> None:
    study = small_study()
    full, method, no_l2, scratch = study.runs()
    assert study.parent(full) is None
    assert study.parent(method) == study.parent(no_l2) == full
    assert study.parent(scratch) is None
    assert study.training(full) == study.pretrain
    assert study.training(method) == study.training(scratch) == study.finetune


def test_a_variant_is_the_method_but_for_what_it_names() -> None:
    study = small_study(method={"latent_std": 0.3})
    assert study.variant(FULL_PRECISION) is None
    assert study.variant(METHOD) == study.method
    variant = study.variant("no_l2")
    assert variant is not None
    assert variant == replace(study.method, weight_scaling_l2=0.0)
    with pytest.raises(UserError, match="found 'no_such'; allowed: full_precision, method, no_l2"):
        study.variant("no_such")


def test_a_runs_folder_and_the_command_that_makes_it() -> None:
    for variant, stage in (("full_precision", "pretrain"), ("method", "finetune"), ("x", "ablate --variant x")):
        run = Run(network="vgg_small", variant=variant, seed=3)
        assert run.folder == Path("runs", "vgg_small", variant, "seed3")
        command, _, options = stage.partition(" ")
        words = f"trained-binarization {command} --study small --network vgg_small {options} --seed 3"
        assert small_study().command(run).split() == words.split()


@pytest.mark.parametrize(
    ("text", "number"), [("1e-4", 1e-4), ("5.0e-4", 5e-4), ("1E3", 1000.0), ("-2e+1", -20.0), ("0.5", 0.5), ("3", 3)]
)
def test_numbers_are_numbers(text: str, number: float, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"value: {text}\n", encoding="utf-8")
    assert read_yaml(path) == {"value": number}


@pytest.mark.parametrize("text", ["e4", "1e", "'1e-4'", "1.2.3"])
def test_what_only_looks_like_a_number_is_text(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"value: {text}\n", encoding="utf-8")
    assert isinstance(read_yaml(path)["value"], str)


def test_a_study_cannot_be_changed_once_read() -> None:
    study = small_study()
    with pytest.raises(ValidationError, match="frozen"):
        study.pretrain.epochs = 100


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    assert load_study(write_params(tmp_path / "p.yaml", small_settings())) == small_study()

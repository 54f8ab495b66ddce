"""Fingerprints, and files that are whole or not there."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers import small_settings, small_study, tree
from trained_binarization.errors import UserError
from trained_binarization.files import write_json, write_text, written_whole
from trained_binarization.records import canonical, fingerprint, read_record, run_folder, settings_of, status, untrained
from trained_binarization.study import FULL_PRECISION, METHOD, Run, Study

DATA = "0" * 64
PARENT = Run(network="vgg_small", variant=FULL_PRECISION, seed=0)
CHILD = Run(network="vgg_small", variant=METHOD, seed=0)
SCRATCH = Run(network="vgg_small", variant="from_scratch", seed=0)


def prints(data: str = DATA, **changes: Any) -> dict[str, str]:
    study = small_study(**changes)
    return {run.variant: fingerprint(study, run, data) for run in (PARENT, CHILD, SCRATCH)}


BEFORE = prints()

STAGE: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 64,
    "learning_rate": 0.123,
    "momentum": 0.5,
    "weight_decay": 0.25,
    "schedule": "step",
    "label_smoothing": 0.1,
    "evaluate_every": 3,
}
OF_PARENT: list[dict[str, Any]] = [{"pretrain": {key: value}} for key, value in STAGE.items()]
OF_PARENT += [{"pretrain": {"optimizer": "adam"}}]
OF_CHILDREN: list[dict[str, Any]] = [{"finetune": {key: value}} for key, value in STAGE.items()]
OF_CHILDREN += [{"finetune": {"optimizer": "sgd"}}]
OF_CHILDREN += [{"finetune": {"latent_weight_decay": 0.1}}, {"finetune": {"alpha_learning_rate": 0.1}}]
OF_CHILDREN += [
    {"method": {key: value}}
    for key, value in {
        "activation_values": "plus_minus_one",
        "activation_estimator": "identity",
        "activation_window": "alpha",
        "activation_scaling": "none",
        "weight_estimator": "polynomial",
        "weight_scaling": "analytic",
        "weight_scaling_granularity": "channel",
        "weight_scaling_l2": 0.5,
        "latent_std": None,
        "initial_alpha": "one",
    }.items()
]
OF_ALL: list[dict[str, Any]] = [
    {"dataset": {"name": "cifar10"}},
    {"dataset": {"validation": 100}},
    {"dataset": {"padding": 3}},
    {"dataset": {"flip": True}},
    {"dataset": {"cutout": 4}},
    {"architecture": {"vgg_small": {"width": 0.5}}},
    {"compute": {"autocast": "bfloat16"}},
]
OF_NONE: list[dict[str, Any]] = [
    {"study": "renamed"},
    {"title": "another"},
    {"stand_in": None},
    {"dataset": {"root": "elsewhere"}},
    {"dataset": {"download": True}},
    {"seeds": {"pretrain": [0, 1], "finetune": [0, 1]}},
    {"ablations": ["no_l2", "from_scratch", "other"], "variants": {"other": {"latent_std": 0.1}}},
    {"compute": {"device": "auto"}},
    {"compute": {"threads": 4}},
    {"compute": {"channels_last": False}},
    {"compute": {"compile": True}},
    {"compute": {"checkpoint_seconds": 5.0}},
]


@pytest.mark.parametrize("changes", OF_PARENT, ids=str)
def test_a_setting_of_the_parent_changes_parent_and_child_but_not_who_starts_from_scratch(changes: Any) -> None:
    after = prints(**changes)
    assert {name: after[name] != BEFORE[name] for name in BEFORE} == {
        "full_precision": True,
        "method": True,
        "from_scratch": False,
    }


@pytest.mark.parametrize("changes", OF_CHILDREN, ids=str)
def test_a_setting_of_the_binary_training_changes_binary_runs_alone(changes: Any) -> None:
    settings = small_settings(**changes)
    settings["ablations"] = ["from_scratch"]
    settings["variants"] = {"from_scratch": {"initialization": "scratch"}}
    study = Study.model_validate(settings)
    assert fingerprint(study, PARENT, DATA) == BEFORE["full_precision"]
    assert fingerprint(study, CHILD, DATA) != BEFORE["method"]
    assert fingerprint(study, SCRATCH, DATA) != BEFORE["from_scratch"]


@pytest.mark.parametrize("changes", OF_ALL, ids=str)
def test_a_setting_of_all_runs_changes_all(changes: Any) -> None:
    after = prints(**changes)
    assert all(after[name] != BEFORE[name] for name in BEFORE)


@pytest.mark.parametrize("changes", OF_NONE, ids=str)
def test_what_does_not_say_what_is_trained_changes_none(changes: Any) -> None:
    assert prints(**changes) == BEFORE


def test_seed_data_and_version_are_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    study = small_study(seeds={"pretrain": [0, 1], "finetune": [0, 1]})
    assert fingerprint(study, PARENT.model_copy(update={"seed": 1}), DATA) != fingerprint(study, PARENT, DATA)
    assert all(prints("1" * 64)[name] != BEFORE[name] for name in BEFORE)
    monkeypatch.setattr("trained_binarization.records.METHOD_VERSION", 10**6)
    assert all(prints()[name] != BEFORE[name] for name in BEFORE)


def test_every_setting_of_the_schema_is_tried_above() -> None:
    def keys(content: dict[str, Any], before: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
        found: set[tuple[str, ...]] = set()
        for key, value in content.items():
            deeper = isinstance(value, dict) and (*before, key) != ("variants",)
            found |= keys(value, (*before, key)) if deeper else {(*before, key)}
        return found

    tried = set().union(*(keys(changes) for changes in OF_PARENT + OF_CHILDREN + OF_ALL + OF_NONE))
    known = keys(small_study().model_dump())
    left = {("networks",), ("seeds", "ablate"), ("method", "initialization")}
    left |= {("pretrain", "from")}  # tests/training/test_torchvision_weights.py
    left |= {("finetune", "distillation")}  # below: from_scratch cannot be distilled
    assert known - tried == left


def test_distillation_is_what_a_binary_run_trains() -> None:
    def print_of(temperature: float | None) -> str:
        settings = small_settings(ablations=[])
        settings["variants"] = {}
        settings["finetune"]["distillation"] = temperature and {"share": 0.5, "temperature": temperature}
        study = Study.model_validate(settings)
        assert fingerprint(study, PARENT, DATA) == BEFORE["full_precision"]
        return fingerprint(study, CHILD, DATA)

    assert print_of(None) == BEFORE["method"]
    assert len({print_of(value) for value in (None, 1.0, 2.0)}) == 3


def test_equal_settings_have_one_text() -> None:
    assert canonical({"b": 1, "a": [1.5, None, True]}) == canonical({"a": [1.5, None, True], "b": 1})
    assert canonical({"a": 1}) != canonical({"a": "1"})


def test_settings_are_resolved() -> None:
    study = small_study()
    no_l2 = settings_of(study, Run(network="vgg_small", variant="no_l2", seed=0))
    assert no_l2["method"]["weight_scaling_l2"] == 0
    assert no_l2["method"]["latent_std"] == 0.5
    assert settings_of(study, PARENT)["method"] is None


# ------------------------------------------------------------------------------------------------------- whole files


def test_a_file_appears_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.json"
    write_json(path, {"x": [1, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"x": [1, None]}
    assert [p.name for p in path.parent.iterdir()] == ["c.json"]


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), MemoryError()], ids=repr)
def test_where_the_writer_fails_the_old_file_stays(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with written_whole(path) as partial:
            partial.write_text("half of the n", encoding="utf-8")
            assert path.read_text(encoding="utf-8") == "old"
            raise error

    with pytest.raises(type(error)):
        fail()
    assert tree(tmp_path).keys() == {"a.txt"}
    assert path.read_text(encoding="utf-8") == "old"


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    assert path.read_text(encoding="utf-8") == "1\n"
    assert tree(tmp_path).keys() == {"a.json"}


def test_killed_while_writing_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from trained_binarization.files import written_whole\n"
        "with written_whole(Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text(encoding="utf-8") == "old"
    write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "new"


@pytest.mark.parametrize("obstacle", ["a file where the folder should be", "a folder where the file should be"])
def test_what_cannot_be_written_is_told_and_nothing_is_lost(obstacle: str, tmp_path: Path) -> None:
    if obstacle.startswith("a file"):
        write_text(tmp_path / "folder", "in the way")
        path = tmp_path / "folder" / "a.txt"
    else:
        path = tmp_path / "a.txt"
        write_text(path / "inside", "in the way")
    before = tree(tmp_path)
    with pytest.raises(UserError, match="cannot be written") as told:
        write_text(path, "new")
    assert str(path) in str(told.value)
    assert tree(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written"):
        write_text(tmp_path / "a.txt", "new")
    tmp_path.chmod(0o700)


# ------------------------------------------------------------------------------------------------------------ reading


def test_status_of_a_run(small: Path) -> None:
    results, study = small / "results", small_study()
    checksum = json.loads((results / "small" / "data.json").read_text(encoding="utf-8"))["checksum"]
    assert status(results, study, PARENT, checksum)[0] == "done"
    assert status(results, study, PARENT, DATA)[0] == "stale"
    assert status(results, small_study(pretrain={"epochs": 9}), PARENT, checksum)[0] == "stale"
    assert status(results, study, PARENT.model_copy(update={"seed": 5}), checksum)[:2] == ("missing", None)
    (run_folder(results, study, PARENT) / "history.csv").unlink()
    assert status(results, study, PARENT, checksum)[:2] == ("missing", None)


@pytest.mark.parametrize("data", ["there", "gone"])
def test_runs_that_need_training_are_named(data: str, small: Path) -> None:
    """Where data.json is gone, the records are believed: it does not make them all stale."""
    results, study = small / "results", small_study()
    folder = results / "small" / "runs" / "vgg_small"
    if data == "gone":
        (results / "small" / "data.json").unlink()
    assert untrained(results, study) == {}
    (folder / "from_scratch/seed0/record.json").unlink()
    (folder / "no_l2/seed0/record.json").write_text('{"study": "sm')
    assert {"from_scratch", "no_l2"} <= {run.variant for run in untrained(results, study)}
    assert "method" not in {run.variant for run in untrained(results, study)}


def test_a_record_comes_back_as_it_was(small: Path) -> None:
    folder = run_folder(small / "results", small_study(), CHILD)
    record = read_record(folder)
    assert record is not None
    before = (folder / "record.json").read_bytes()
    write_json(folder / "record.json", record.model_dump())
    assert (folder / "record.json").read_bytes() == before
    assert read_record(folder / "nowhere") is None

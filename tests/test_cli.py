"""The command line where nothing is wrong."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import QUICK, REPOSITORY, command, small_settings, write_params


def test_help_names_every_stage(tmp_path: Path) -> None:
    outcome = command("--help", folder=tmp_path)
    assert outcome.status == 0
    for stage in ("prepare", "pretrain", "finetune", "ablate", "aggregate", "report", "run", "select", "verify"):
        assert re.search(rf"\b{stage}\b", outcome.out), stage


def test_without_a_command_the_help_is_shown_and_no_empty_error(tmp_path: Path) -> None:
    outcome = command(folder=tmp_path)
    assert "Usage" in outcome.out + outcome.err
    assert "error: \n" not in outcome.err


def test_stages_by_hand_give_what_run_gives(small_trained: Path, tmp_path: Path) -> None:
    write_params(tmp_path / "elsewhere.yaml", small_settings())
    places = ("--params", "elsewhere.yaml", "--results", "out")
    who = ("--network", "vgg_small", "--seed", "0")
    for stage in (
        ("prepare",),
        ("pretrain", *who),
        ("finetune", *who),
        ("ablate", "--variant", "no_l2", *who),
        ("ablate", "--variant", "from_scratch", *who),
    ):
        outcome = command(*stage, *places, folder=tmp_path)
        assert outcome.status == 0, outcome.err
        assert outcome.err == ""
    for run in ("full_precision", "method", "no_l2", "from_scratch"):
        at = Path("small/runs/vgg_small", run, "seed0/weights.safetensors")
        assert (tmp_path / "out" / at).read_bytes() == (small_trained / "results" / at).read_bytes(), run


def test_a_second_call_says_that_nothing_was_trained(small: Path) -> None:
    outcome = command("finetune", "--network", "vgg_small", "--seed", "0", folder=small)
    assert outcome.status == 0
    assert re.fullmatch(
        r"vgg_small/method/seed0: \d+\.\d\d % on the test images \(already there, nothing trained\); \d of 4 runs done\n",
        outcome.out,
    )


def test_a_stage_that_was_planned_for_another_study_is_refused(small: Path) -> None:
    """Between an engine's plan and its stage, another study may have been selected."""
    stage = ("finetune", "--network", "vgg_small", "--seed", "0")
    assert command(*stage, "--study", "small", folder=small).status == 0
    outcome = command(*stage, "--study", "other", folder=small)
    assert outcome.status == 2
    assert outcome.err == "error: params.yaml: study: found 'small'; allowed: 'other', as --study says\n"


def test_select_copies_a_study_byte_for_byte(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "studies", tmp_path / "studies")
    write_params(tmp_path / "studies" / "small.yaml", small_settings())
    for name in ("quick", "small", "quick"):
        outcome = command("select", name, folder=tmp_path)
        assert outcome.status == 0, outcome.err
        assert (tmp_path / "params.yaml").read_bytes() == (tmp_path / "studies" / f"{name}.yaml").read_bytes()


@pytest.mark.parametrize(("width", "parameters"), [("1.0", "4,660,106"), ("0.25", None)])
def test_summary_counts_what_the_paper_counts(width: str, parameters: str | None, tmp_path: Path) -> None:
    settings = small_settings(dataset={"name": "cifar10"})
    write_params(tmp_path / "params.yaml", settings)
    outcome = command("summary", "--width", width, folder=tmp_path)
    assert outcome.status == 0, outcome.err
    total = next(line for line in outcome.out.splitlines() if line.startswith("total"))
    if parameters:
        assert parameters in total
        assert "4,571,136" in total
    assert "conv6" in outcome.out
    assert "BinaryConv2d" in outcome.out


def test_quick_is_the_selected_study() -> None:
    assert (REPOSITORY / "params.yaml").read_bytes() == QUICK.read_bytes()


BARE = """
import sys
sys.modules.update(dict.fromkeys({extras}))  # None there: whoever imports it is told that it is not installed
from trained_binarization.cli import main
main()
"""
EXTRAS = set("jinja2 matplotlib pandas scipy seaborn sklearn dvc snakemake openvino onnxruntime nncf".split())  # noqa: SIM905


def test_run_needs_no_workflow_engine_and_none_of_the_extras(cifar10_root: Path, tmp_path: Path) -> None:
    # As on a bare GPU machine. The digits come with scikit-learn; CIFAR-10 needs nothing more.
    changes = {"study": "bare", "dataset": {"name": "cifar10", "root": str(cifar10_root)}, "pretrain": {"epochs": 9}}
    write_params(tmp_path / "params.yaml", small_settings(**changes))
    done = subprocess.run(
        [sys.executable, "-c", BARE.format(extras=EXTRAS), "run", "--time-limit", "10"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "4 of 4 runs left, vgg_small/full_precision/seed0 first; call again" in done.stdout
    assert list((tmp_path / "results/bare/runs/vgg_small/full_precision/seed0/checkpoints").glob("step*"))

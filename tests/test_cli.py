"""The command line where nothing is wrong."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import QUICK, REPOSITORY, Outcome, command, small_settings, tree, write_params
from trained_binarization.study import load_study


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
        r"vgg_small/method/seed0: \d+\.\d\d % on the test images \(already there, nothing trained\); "
        r"4 of 4 runs done\n",
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


def test_a_study_of_ones_own_in_one_step(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "studies", tmp_path / "studies")
    assert command("new", "mine", "--from", "cifar10-cpu", folder=tmp_path).status == 0
    mine, source = (load_study(tmp_path / "studies" / f"{name}.yaml") for name in ("mine", "cifar10-cpu"))
    assert mine == source.model_copy(update={"study": "mine"})
    text = (tmp_path / "studies" / "mine.yaml").read_text("utf-8")
    assert text.count("#") >= (tmp_path / "studies" / "cifar10-cpu.yaml").read_text("utf-8").count("#") - 1  # comments
    assert command("select", "mine", folder=tmp_path).status == 0
    outcome = command("new", "mine", folder=tmp_path)
    assert (outcome.status, outcome.err) == (
        2,
        "error: studies/mine.yaml: is there already; choose another name, or edit it\n",
    )


@pytest.mark.parametrize("name", ["../mine", "no name", "benchmarks", "", "-x"])
def test_a_name_that_is_no_studys_makes_no_file(name: str, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "studies", tmp_path / "studies")
    before = tree(tmp_path)
    outcome = command("new", "--", name, folder=tmp_path)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert tree(tmp_path) == before


def test_a_selected_study_is_the_one_that_its_file_is_called_after(tmp_path: Path) -> None:
    write_params(tmp_path / "studies" / "other.yaml", small_settings())
    outcome = command("select", "other", folder=tmp_path)
    assert outcome.status == 2
    assert outcome.err == "error: studies/other.yaml: study: found 'small'; allowed: 'other', as the file is called\n"


def test_edits_of_the_selected_study_are_not_lost(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "studies", tmp_path / "studies")
    edited = QUICK.read_text("utf-8").replace("epochs: 8", "epochs: 9")
    (tmp_path / "params.yaml").write_text(edited, "utf-8")
    outcome = command("select", "cifar10", folder=tmp_path)
    assert outcome.status == 2
    assert "trained-binarization new NAME --from params.yaml" in outcome.err
    assert (tmp_path / "params.yaml").read_text("utf-8") == edited
    assert command("new", "kept", "--from", "params.yaml", folder=tmp_path).status == 0
    assert load_study(tmp_path / "studies" / "kept.yaml").pretrain.epochs == 9
    assert command("select", "cifar10", folder=tmp_path).status == 0  # as the message promised: nothing is lost now
    assert (tmp_path / "params.yaml").read_bytes() == (tmp_path / "studies" / "cifar10.yaml").read_bytes()


def test_a_parent_without_weights_is_trained_once_more_for_its_child(small: Path) -> None:
    """Weights are not in git: in a clone, a finished parent has none."""
    runs = small / "results" / "small" / "runs" / "vgg_small"
    weights = runs / "full_precision" / "seed0" / "weights.safetensors"
    before = {path: path.read_bytes() for path in (weights, runs / "no_l2" / "seed0" / "history.csv")}
    weights.unlink()
    shutil.rmtree(runs / "no_l2")
    outcome = command("ablate", "--variant", "no_l2", "--network", "vgg_small", "--seed", "0", folder=small)
    assert outcome.status == 0, outcome.err
    assert "the weights of vgg_small/full_precision/seed0 are not here; it is trained once more" in outcome.out
    assert {path: path.read_bytes() for path in before} == before


def printed(outcome: Outcome) -> list[str]:
    """The words of the command that a message tells, without the program's name."""
    found = re.search(r"trained-binarization ([a-z][^;`\n]*)", outcome.out + outcome.err)
    assert found, outcome
    return found[1].split()


@pytest.mark.parametrize(
    ("missing", "asked"),
    [
        ("runs/vgg_small/no_l2/seed0/record.json", ("aggregate",)),
        ("runs/vgg_small/full_precision/seed0/record.json", ("aggregate",)),
        ("runs/vgg_small/method/seed0/record.json", ("evaluate", "--network", "vgg_small", "--seed", "0")),
        ("data.json", ("finetune", "--network", "vgg_small", "--seed", "0")),
        ("verdicts.json", ("report",)),
    ],
)
@pytest.mark.parametrize("selected", [True, False])
def test_a_printed_command_makes_what_was_missing_whatever_study_is_selected(
    selected: bool, missing: str, asked: tuple[str, ...], small: Path
) -> None:
    """Copied from a message as it is. The study has no file below studies/, or another study is the selected one."""
    if not selected:
        (small / "studies").mkdir(exist_ok=True)
        (small / "params.yaml").rename(small / "studies" / "small.yaml")
        shutil.copyfile(QUICK, small / "params.yaml")
    shutil.copyfile(REPOSITORY / "claims.yaml", small / "claims.yaml")
    (small / "results" / "small" / missing).unlink(missing_ok=True)
    places = () if selected else ("--params", "studies/small.yaml")
    words = printed(command(*asked, *places, folder=small))
    outcome = command(*words, folder=small)
    assert outcome.status == 0, outcome.err
    assert (small / "results" / "small" / missing).exists()


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

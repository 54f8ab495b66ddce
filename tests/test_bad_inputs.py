"""What a user can break, in one table: each ends in one line that says what to mend, and nothing is lost.

A case breaks something in a folder with a trained small study, gives a command, and says which fragments the one line
must hold: the file, the key, what was found, what is allowed.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import REPOSITORY, command, merged, small_settings, tree, write_params
from trained_binarization.datasets.cifar10 import FILES

PARENT = Path("results/small/runs/vgg_small/full_precision/seed0")
CHILD = Path("results/small/runs/vgg_small/method/seed0")
CIFAR = Path("data/raw/cifar-10-batches-py")
FINETUNE = ("finetune", "--network", "vgg_small", "--seed", "0")
PRETRAIN = ("pretrain", "--network", "vgg_small", "--seed", "0")

Break = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """One broken thing."""

    name: str
    breaks: Break
    fragments: tuple[str, ...]
    command: tuple[str, ...] = ("prepare",)
    marks: tuple[Any, ...] = field(default=())


# ---------------------------------------------------------------------------------------------------- ways to break


def nothing(folder: Path) -> None:
    """Leave all as it is: the command is what is wrong."""


def params(**changes: Any) -> Break:
    """Settings of the study changed."""
    return lambda folder: void(write_params(folder / "params.yaml", small_settings(**changes)))


def without(*keys: str) -> Break:
    """A key of the study left out."""

    def breaks(folder: Path) -> None:
        settings = small_settings()
        inner = settings
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        write_params(folder / "params.yaml", settings)

    return breaks


def text(content: str | bytes, name: str = "params.yaml") -> Break:
    """A file replaced as a whole."""
    raw = content if isinstance(content, bytes) else content.encode()
    return lambda folder: void((folder / name).write_bytes(raw))


def appended(line: str) -> Break:
    """A line after the study's own."""

    def breaks(folder: Path) -> None:
        path = folder / "params.yaml"
        path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")

    return breaks


def removed(*names: Path | str) -> Break:
    """Files or folders gone."""

    def breaks(folder: Path) -> None:
        for name in names:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return breaks


def both(*ways: Break) -> Break:
    """One after the other."""

    def breaks(folder: Path) -> None:
        for way in ways:
            way(folder)

    return breaks


def cut(name: Path | str) -> Break:
    """The second half of a file gone."""

    def breaks(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return breaks


def edited(name: Path | str, *missing: str, **changes: Any) -> Break:
    """Keys of a JSON file changed, others missing."""

    def breaks(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8")) | changes
        kept = {key: value for key, value in content.items() if key not in missing}
        (folder / name).write_text(json.dumps(kept), encoding="utf-8")

    return breaks


def in_the_way(name: Path | str) -> Break:
    """A file where a folder should be."""

    def breaks(folder: Path) -> None:
        path = folder / name
        if path.is_dir():
            shutil.move(path, path.with_name("moved away"))
        path.write_text("in the way", encoding="utf-8")

    return breaks


def foreign_weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Break:
    """The parent's weights changed, its record's SHA-256 made to match, and the child to be trained."""

    def breaks(folder: Path) -> None:
        path = folder / PARENT / "weights.safetensors"
        save_file(change(load_file(path)), path)
        edited(PARENT / "record.json", weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest())(folder)
        shutil.rmtree(folder / CHILD)

    return breaks


def narrower(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return tensors | {"conv1.weight": tensors["conv1.weight"][:8].clone()}


def renamed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.replace("conv6", "layer6"): tensor for name, tensor in tensors.items()}


def cut_with_matching_record(folder: Path) -> None:
    cut(PARENT / "weights.safetensors")(folder)
    digest = hashlib.sha256((folder / PARENT / "weights.safetensors").read_bytes()).hexdigest()
    edited(PARENT / "record.json", weights_sha256=digest)(folder)
    shutil.rmtree(folder / CHILD)


def cifar10_without(name: str) -> Break:
    """Empty files with the right names, but for one."""

    def breaks(folder: Path) -> None:
        (folder / CIFAR).mkdir(parents=True)
        for other in FILES:
            if other != name:
                (folder / CIFAR / other).write_bytes(b"")
        on_cifar10(folder)

    return breaks


def on_cifar10(folder: Path) -> None:
    """The study's data set is CIFAR-10, not yet prepared."""
    params(dataset={"name": "cifar10", "root": "data/raw", "download": False})(folder)
    (folder / "results/small/data.json").unlink()


def void(_: object) -> None:
    """Nothing."""


NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
METHODS_OWN = {"weight_scaling_l2": 1e-4}

CASES = [
    # The study file itself
    Case("no such file", nothing, ("nowhere.yaml", "no such file"), ("prepare", "--params", "nowhere.yaml")),
    Case("a folder", removed("params.yaml"), ("results", "cannot be read"), ("prepare", "--params", "results")),
    Case("empty file", text(""), ("params.yaml", "found NoneType", "a mapping")),
    Case("only a comment", text("# nothing\n"), ("params.yaml", "found NoneType", "a mapping")),
    Case("not YAML", text("study: [quick\n"), ("params.yaml", "line 2", "not YAML")),
    Case("a tab", text("study:\n\tquick\n"), ("params.yaml", "line 2", "not YAML")),
    Case("a list", text("- study\n- quick\n"), ("params.yaml", "found list", "a mapping")),
    Case("a word", text("quick\n"), ("params.yaml", "found str", "a mapping")),
    Case("binary file", text(bytes(range(256)) * 4), ("params.yaml",)),
    Case("a control character", text("study: a\x01b\n"), ("params.yaml", "not YAML")),
    Case("two documents", text("a: 1\n---\nb: 2\n"), ("params.yaml", "not YAML")),
    Case("code in YAML", text("study: !!python/object/apply:os.getcwd []\n"), ("params.yaml", "line 1", "not YAML")),
    Case("a list as a key", appended("[1, 2]: 3"), ("params.yaml",)),
    Case("a mapping as a key", appended("{{study}}: 3"), ("params.yaml",)),
    Case("a date that is none", text("title: 2019-99-99\n"), ("params.yaml",)),
    Case("too deep", text("[" * 3000), ("params.yaml",)),
    # Keys
    Case("unknown key", appended("colour: blue"), ("params.yaml", "colour", "unknown key", "allowed")),
    Case("a share of all and more", params(finetune={"distillation": {"share": 1.5, "temperature": 1.0}}), ("1.5",)),
    Case(
        "distilled without a parent",
        params(finetune={"distillation": {"share": 0.5, "temperature": 1.0}}),
        ("params.yaml", "finetune.distillation", "allowed: null, since from_scratch has no parent"),
    ),
    Case("no square", params(dataset={"cutout": 0}), ("params.yaml", "dataset.cutout: found 0", "greater than")),
    Case("unknown key within", params(pretrain={"epoch": 3}), ("params.yaml", "pretrain.epoch", "unknown key")),
    Case("a number as a key", appended("3: 4"), ("params.yaml", "3", "allowed")),
    Case("key twice", appended("study: other"), ("params.yaml", "'study' stands twice", "line ")),
    Case("key twice within", appended("other:\n  a: 1\n  a: 2"), ("params.yaml", "'a' stands twice", "line ")),
    Case("missing key", without("finetune", "epochs"), ("params.yaml", "finetune.epochs", "missing")),
    Case("missing section", without("compute"), ("params.yaml", "compute", "missing")),
    # Values
    Case(
        "a string for a number", params(pretrain={"epochs": "8"}), ("params.yaml", "pretrain.epochs", "'8'", "integer")
    ),
    Case("a float for a count", params(pretrain={"epochs": 1.5}), ("params.yaml", "pretrain.epochs", "1.5", "integer")),
    Case("a number for a switch", params(dataset={"flip": 1}), ("params.yaml", "dataset.flip", "1", "boolean")),
    Case("a switch for a number", params(pretrain={"epochs": True}), ("params.yaml", "pretrain.epochs", "integer")),
    Case("null", params(pretrain={"learning_rate": None}), ("params.yaml", "pretrain.learning_rate", "None")),
    Case("a list for a section", params(compute=[1]), ("params.yaml", "compute", "[1]")),
    Case(
        "negative width",
        params(architecture={"vgg_small": {"width": -0.25}}),
        ("params.yaml", "architecture.vgg_small.width", "-0.25", "greater than 0"),
    ),
    Case(
        "zero epochs",
        params(finetune={"epochs": 0}),
        ("params.yaml", "finetune.epochs", "0", "greater than or equal to 1"),
    ),
    Case(
        "not a number",
        params(pretrain={"learning_rate": float("nan")}),
        ("params.yaml", "pretrain.learning_rate", "nan"),
    ),
    Case(
        "infinite", params(pretrain={"learning_rate": float("inf")}), ("params.yaml", "pretrain.learning_rate", "inf")
    ),
    Case(
        "unknown optimizer",
        params(pretrain={"optimizer": "lion"}),
        ("params.yaml", "pretrain.optimizer", "'lion'", "'sgd' or 'adam'"),
    ),
    Case(
        "unknown schedule",
        params(finetune={"schedule": "flat"}),
        ("params.yaml", "finetune.schedule", "'flat'", "'cosine'"),
    ),
    Case(
        "unknown estimator",
        params(method={"weight_estimator": "ste"}),
        ("params.yaml", "method.weight_estimator", "'ste'", "'long_tailed'", "'identity'"),
    ),
    Case(
        "window in units of a factor that is not there",
        params(method={"activation_window": "alpha", "activation_scaling": "none"}),
        ("params.yaml", "activation_window", "'alpha'", "'absolute'"),
    ),
    Case("unknown data set", params(dataset={"name": "mnist"}), ("params.yaml", "dataset.name", "'mnist'", "'digits'")),
    Case("unknown network", params(networks=["lenet"]), ("params.yaml", "networks.0", "'lenet'", "'vgg_small'")),
    Case("no network", params(networks=[]), ("params.yaml", "networks", "[]", "at least 1")),
    Case("network twice", params(networks=["vgg_small", "vgg_small"]), ("params.yaml", "networks", "vgg_small")),
    Case(
        "network without architecture",
        without("architecture", "vgg_small"),
        ("params.yaml", "architecture", "vgg_small"),
    ),
    Case("a name that is no name", params(study="../other"), ("params.yaml", "study", "'../other'")),
    Case(
        "the benchmarks' folder", params(study="benchmarks"), ("params.yaml", "study: found 'benchmarks'", "other name")
    ),
    # Seeds and variants
    Case("seed negative", params(seeds={"pretrain": [-1]}), ("params.yaml", "seeds.pretrain.0", "-1")),
    Case("seed too large", params(seeds={"pretrain": [0, 2**64]}), ("params.yaml", "seeds.pretrain")),
    Case("no seeds", params(seeds={"ablate": []}), ("params.yaml", "seeds.ablate", "[]")),
    Case("seed twice", params(seeds={"pretrain": [0, 0]}), ("params.yaml", "seeds.pretrain", "[0, 0]", "distinct")),
    Case("seed without parent", params(seeds={"finetune": [7]}), ("params.yaml", "seeds.finetune", "[7]", "[0]")),
    Case(
        "seed without method", params(seeds={"pretrain": [0, 1], "ablate": [1]}), ("params.yaml", "seeds.ablate", "[1]")
    ),
    Case(
        "ablations and variants differ",
        params(ablations=["no_l2"]),
        ("params.yaml", "variants", "from_scratch", "ablations"),
    ),
    Case("ablation twice", params(ablations=["no_l2", "no_l2", "from_scratch"]), ("params.yaml", "ablations", "no_l2")),
    Case(
        "variant equal to the method",
        params(variants={"no_l2": METHODS_OWN}),
        ("params.yaml", "variants.no_l2", "at least one difference"),
    ),
    Case("variant empty", lambda f: empty_variant(f), ("params.yaml", "variants.no_l2", "at least one difference")),
    Case(
        "variant with unknown key",
        params(variants={"no_l2": {"weight_l2": 0}}),
        ("params.yaml", "variants.no_l2.weight_l2", "unknown key"),
    ),
    Case(
        "variant with a wrong value",
        params(variants={"no_l2": {"weight_scaling_l2": "none"}}),
        ("params.yaml", "variants.no_l2.weight_scaling_l2", "'none'"),
    ),
    Case(
        "variant with a taken name",
        params(ablations=["method", "no_l2", "from_scratch"], variants={"method": {"latent_std": 0.1}}),
        ("params.yaml", "ablations", "'method'"),
    ),
    # The command line
    Case("unknown command", nothing, ("trian",), ("trian",)),
    Case("unknown option", nothing, ("--sed",), ("pretrain", "--network", "vgg_small", "--sed", "0")),
    Case("missing option", nothing, ("--seed",), ("pretrain", "--network", "vgg_small")),
    Case("option without value", nothing, ("--seed",), ("pretrain", "--network", "vgg_small", "--seed")),
    Case("surplus argument", nothing, ("extra",), ("prepare", "extra")),
    Case(
        "seed no number",
        nothing,
        ("--seed", "integer", "'one'"),
        ("pretrain", "--network", "vgg_small", "--seed", "one"),
    ),
    Case("summary of no width", nothing, ("--width", "-1"), ("summary", "--width", "-1")),
    Case("time limit no number", nothing, ("--time-limit", "number"), ("run", "--time-limit", "soon")),
    *(
        Case(f"time limit {value}", nothing, ("--time-limit", value), ("run", "--time-limit", value))
        for value in ("nan", "inf", "-1")
    ),
    Case("summary of a width that is no number", nothing, ("--width", "nan"), ("summary", "--width", "nan")),
    Case(
        "network that the study has not",
        nothing,
        ("network", "'resnet18'", "allowed: vgg_small"),
        ("pretrain", "--network", "resnet18", "--seed", "0"),
    ),
    Case("seed that the study has not", nothing, ("seed", "7", "allowed: 0"), (*PRETRAIN[:-1], "7")),
    Case(
        "variant that the study has not",
        nothing,
        ("variant", "'no_such'", "allowed: full_precision, method, no_l2, from_scratch"),
        ("ablate", "--network", "vgg_small", "--variant", "no_such", "--seed", "0"),
    ),
    # Data
    Case(
        "CIFAR-10 not there",
        on_cifar10,
        (f"{CIFAR}/data_batch_1", "no such file", "dataset.download: true"),
    ),
    Case("one batch missing", cifar10_without("data_batch_1"), (f"{CIFAR}/data_batch_1", "no such file")),
    Case("empty batches", cifar10_without("none"), (f"{CIFAR}/data_batch_1", "MD5", FILES["data_batch_1"])),
    Case(
        "not prepared",
        removed("results/small/data.json"),
        ("results/small/data.json", "no such file", "trained-binarization prepare"),
        FINETUNE,
    ),
    Case(
        "data.json cut",
        cut("results/small/data.json"),
        ("results/small/data.json", "damaged", "trained-binarization prepare"),
        FINETUNE,
    ),
    Case(
        "data.json of another schema",
        edited("results/small/data.json", "checksum"),
        ("results/small/data.json", "checksum", "trained-binarization prepare"),
        FINETUNE,
    ),
    Case(
        "data.json of another data set",
        edited("results/small/data.json", dataset="cifar10"),
        ("results/small/data.json", "dataset", "'cifar10'", "'digits'", "trained-binarization prepare"),
        FINETUNE,
    ),
    Case(
        "data.json with another checksum",
        both(edited("results/small/data.json", checksum="0" * 64), removed(PARENT)),
        ("checksum", "000000000000", "prepare"),
        PRETRAIN,
    ),
    Case(
        "batch larger than the set",
        params(finetune={"batch_size": 2000}),
        ("batch_size", "2000", "1297"),
        FINETUNE,
    ),
    Case("more validation than images", params(dataset={"validation": 1300}), ("validation", "1300"), PRETRAIN),
    # Records and weights
    Case(
        "parent's record cut",
        both(cut(PARENT / "record.json"), removed(CHILD)),
        (str(PARENT), "unsound", "trained-binarization pretrain --", "--network vgg_small --seed 0"),
        FINETUNE,
    ),
    Case(
        "parent missing",
        removed(PARENT, CHILD),
        (str(PARENT), "missing", "trained-binarization pretrain --", "--network vgg_small --seed 0"),
        FINETUNE,
    ),
    Case(
        "parent stale",
        both(params(pretrain={"learning_rate": 0.01}), removed(CHILD)),
        (str(PARENT), "stale", "trained-binarization pretrain --", "--network vgg_small --seed 0"),
        FINETUNE,
    ),
    Case(
        "parent's weights cut",
        both(cut(PARENT / "weights.safetensors"), removed(CHILD)),
        (f"{PARENT}/weights.safetensors", "SHA-256", "--again"),
        FINETUNE,
    ),
    Case(
        "parent's weights cut, record to match",
        cut_with_matching_record,
        (f"{PARENT}/weights.safetensors", "found damaged content"),
        FINETUNE,
    ),
    Case(
        "weights of another width",
        foreign_weights(narrower),
        (f"{PARENT}/weights.safetensors", "do not fit", "conv1.weight"),
        FINETUNE,
    ),
    Case(
        "weights of another network",
        foreign_weights(renamed),
        (f"{PARENT}/weights.safetensors", "another network", "conv6"),
        FINETUNE,
    ),
    # Places and devices
    Case("results is a file", in_the_way("results"), ("results", "cannot be written"), ("prepare",)),
    Case("the study's folder is a file", in_the_way("results/small"), ("results/small", "cannot be written")),
    Case(
        "the runs' folder is a file",
        in_the_way("results/small/runs"),
        ("results/small/runs", "cannot be written"),
        PRETRAIN,
    ),
    Case(
        "CUDA that is not there",
        both(params(compute={"device": "cuda"}), removed(CHILD)),
        ("compute.device", "'cuda'", "'cpu'"),
        FINETUNE,
        (NO_CUDA,),
    ),
    # Selection and claims
    Case("select what is not there", nothing, ("studies/", "'cifar100'", "quick"), ("select", "cifar100")),
    Case("select over changes", appended("# a note to keep"), ("params.yaml", "changes"), ("select", "quick")),
    Case(
        "select a broken study",
        text("study: [", "studies/quick.yaml"),
        ("studies/quick.yaml", "not YAML"),
        ("select", "quick"),
    ),
    Case("no claims", removed("claims.yaml"), ("claims.yaml", "no such file"), ("verify",)),
    Case("claims not YAML", text("claims: [", "claims.yaml"), ("claims.yaml", "not YAML"), ("verify",)),
    Case("claims a list", text("- one\n", "claims.yaml"), ("claims.yaml",), ("verify",)),
    Case("claims with an unknown key", text("colour: blue\n", "claims.yaml"), ("claims.yaml",), ("verify",)),
    Case("claims broken for the tables", text("claims: [", "claims.yaml"), ("claims.yaml", "not YAML"), ("aggregate",)),
]


def empty_variant(folder: Path) -> None:
    settings = small_settings()
    settings["variants"]["no_l2"] = {}
    write_params(folder / "params.yaml", settings)


@pytest.fixture
def workplace(small: Path) -> Path:
    """A folder like the repository: a trained study, the studies, the claims."""
    (small / "studies").mkdir()
    shutil.copyfile(REPOSITORY / "studies" / "quick.yaml", small / "studies" / "quick.yaml")
    shutil.copyfile(small / "params.yaml", small / "studies" / "small.yaml")
    shutil.copyfile(REPOSITORY / "claims.yaml", small / "claims.yaml")
    return small


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name, marks=case.marks) for case in CASES])
def test_bad_input(case: Case, workplace: Path) -> None:
    case.breaks(workplace)
    before = tree(workplace)
    outcome = command(*case.command, folder=workplace)
    assert outcome.status == 2, outcome
    lines = outcome.err.splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("error: ")
    assert "Traceback" not in outcome.err + outcome.out
    for fragment in case.fragments:
        assert fragment in lines[0], lines[0]
    assert tree(workplace) == before


def test_the_table_is_a_table() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names)) >= 30


def test_the_folder_is_sound_until_it_is_broken(workplace: Path) -> None:
    # Every command of the table, with nothing broken: so each case fails for the reason that it names.
    before = tree(workplace)
    for arguments in (("prepare",), PRETRAIN, FINETUNE, ("run",)):
        outcome = command(*arguments, folder=workplace)
        assert outcome.status == 0, outcome.err
    assert tree(workplace) == before
    assert command("select", "quick", folder=workplace).status == 0
    assert command("verify", folder=workplace).status in (0, 1, 3)


def test_one_flipped_bit_of_cifar10(workplace: Path, cifar10_root: Path) -> None:
    (workplace / CIFAR).mkdir(parents=True)
    for name in FILES:
        (workplace / CIFAR / name).symlink_to(cifar10_root / "cifar-10-batches-py" / name)
    path = workplace / CIFAR / "data_batch_2"
    content = bytearray(path.read_bytes())
    content[1234567] ^= 1
    path.unlink()
    path.write_bytes(content)
    on_cifar10(workplace)
    before = tree(workplace)
    outcome = command("prepare", folder=workplace)
    assert outcome.status == 2
    assert outcome.err.startswith(f"error: {CIFAR}/data_batch_2: MD5: found ")
    assert FILES["data_batch_2"] in outcome.err
    assert outcome.err.count("\n") == 1
    assert tree(workplace) == before


def test_the_same_from_a_shell(workplace: Path) -> None:
    write_params(workplace / "params.yaml", merged(small_settings(), {"pretrain": {"epochs": 0}}))
    done = subprocess.run(
        [sys.executable, "-m", "trained_binarization", "prepare"],
        cwd=workplace,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: params.yaml: pretrain.epochs: found 0; allowed: input should be greater than or equal to 1\n"
    )

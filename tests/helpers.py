"""What several test files share: small studies on real data, the command line in this process, hashes of a folder."""

import contextlib
import copy
import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from ruamel.yaml import YAML

from trained_binarization.cli import main
from trained_binarization.settings import read_yaml
from trained_binarization.study import Study

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("TRAINED_BINARIZATION_DATA", REPOSITORY / "data" / "raw"))
"""Where real images lie, if they are here: cifar-10-batches-py/ and imagenette-160/."""
QUICK = REPOSITORY / "studies" / "quick.yaml"

Settings = dict[str, Any]


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Settings:
    """`base` with `changes` laid over it, mappings merged at every depth."""
    result = copy.deepcopy(dict(base))
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def small_settings(**changes: Any) -> Settings:
    """The quick study cut down to seconds: one seed, two ablations, an eighth of the width, one epoch, float32, CPU."""
    small: Settings = {
        "study": "small",
        "architecture": {"vgg_small": {"width": 0.125}},
        "seeds": {"pretrain": [0], "finetune": [0], "ablate": [0]},
        "pretrain": {"epochs": 1, "batch_size": 128},
        "finetune": {"epochs": 1, "batch_size": 128},
        "ablations": ["no_l2", "from_scratch"],
        "compute": {"device": "cpu", "threads": 1, "autocast": "none", "compile": False, "checkpoint_seconds": 1000.0},
    }
    settings = merged(read_yaml(QUICK), small)
    settings["variants"] = {"no_l2": {"weight_scaling_l2": 0.0}, "from_scratch": {"initialization": "scratch"}}
    return merged(settings, changes)


def small_study(**changes: Any) -> Study:
    """`small_settings`, validated."""
    return Study.model_validate(small_settings(**changes))


def write_params(path: Path, settings: Any) -> Path:
    """Write settings as a params file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style, writer.sort_base_mapping_type_on_output = False, False
    writer.dump(settings, path)
    return path


@dataclass(frozen=True)
class Outcome:
    """What a command ended with."""

    status: int
    out: str
    err: str


def command(*arguments: str | Path, folder: Path) -> Outcome:
    """The command line in this process, run in a folder."""
    out, err = io.StringIO(), io.StringIO()
    status: Any = 0
    with (
        contextlib.chdir(folder),
        mock.patch.object(sys, "argv", ["trained-binarization", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            status = end.code
    return Outcome(int(status or 0), out.getvalue(), err.getvalue())


def run_study(folder: Path, settings: Any) -> Path:
    """Write the study into a folder and train all of its runs there; returns the folder."""
    write_params(folder / "params.yaml", settings)
    outcome = command("run", folder=folder)
    assert outcome.status == 0, outcome.err
    return folder


def started(*arguments: str | Path, folder: Path) -> "subprocess.Popen[str]":
    """The command line in a process of its own, its output together on one pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "trained_binarization", *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


def tree(folder: Path) -> dict[str, str]:
    """What is in a folder: every path with its content's SHA-256, its link's target, or 'folder'."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        elif path.is_dir():
            found[name] = "folder"
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found

"""Fault injection: each kind of file that the product reads is damaged in four ways, and the next command must say so.

The table in docs/reliability.md is made by this test: WRITE_DOCS=1 pytest tests/test_faults.py
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import REPOSITORY, command, small_settings, small_study, tree, write_params
from trained_binarization.evidence.report import replace_between
from trained_binarization.study import Run
from trained_binarization.training.loop import Interrupted
from trained_binarization.training.runs import train_run

pytest.importorskip("openvino")

DOCUMENT = REPOSITORY / "docs" / "reliability.md"
RUNS = "results/small/runs/vgg_small"
METHOD, OTHER, PARENT, CHILD = (
    f"{RUNS}/{name}/seed0" for name in ("method", "from_scratch", "full_precision", "no_l2")
)
DEPLOY = "results/small/deploy/vgg_small"
MODEL = f"{DEPLOY}/vgg_small.xml"
WHO = ("--network", "vgg_small", "--seed", "0")
TRAIN_CHILD = ("ablate", "--variant", "no_l2", *WHO)
PLACES = 8
"""Bits that are flipped in each file, one by one, evenly spaced."""


@dataclass(frozen=True)
class Kind:
    """A kind of file: one of it, another run's or study's, the command that reads it next, and what that may make."""

    what: str
    path: str
    swapped: str
    asked: tuple[str, ...]
    removed: tuple[str, ...] = ()  # beforehand, so that the command has something to do
    made: tuple[str, ...] = ()  # where the command mends the fault: these are then as before


KINDS = [
    Kind("`record.json`", f"{OTHER}/record.json", f"{CHILD}/record.json", ("verify",)),
    Kind("`history.csv`", f"{OTHER}/history.csv", f"{CHILD}/history.csv", ("aggregate",)),
    Kind("`data.json`", "results/small/data.json", "results/small/metrics.json", ("verify",)),
    Kind(
        "a parent's `weights.safetensors`",
        f"{PARENT}/weights.safetensors",
        "results/other/runs/vgg_small/full_precision/seed0/weights.safetensors",
        TRAIN_CHILD,
        (f"{CHILD}/record.json", f"{CHILD}/history.csv", f"{CHILD}/weights.safetensors"),
    ),
    Kind(
        "a binary run's `weights.safetensors`",
        f"{METHOD}/weights.safetensors",
        f"{CHILD}/weights.safetensors",
        ("evaluate", *WHO),
        (f"{METHOD}/signs.safetensors",),
    ),
    Kind(
        "kept `signs.safetensors`",
        f"{METHOD}/signs.safetensors",
        f"{CHILD}/signs.safetensors",
        ("evaluate", *WHO),
        (f"{METHOD}/weights.safetensors",),
    ),
    Kind(
        "a checkpoint, the newest",
        "checkpoint",
        f"{METHOD}/weights.safetensors",
        TRAIN_CHILD,
        (f"{CHILD}/record.json", f"{CHILD}/history.csv", f"{CHILD}/weights.safetensors"),
        (f"{CHILD}/history.csv", f"{CHILD}/weights.safetensors"),
    ),
    Kind("a table", "results/small/tables/runs.csv", "results/small/tables/layers.csv", ("verify",)),
    Kind("`verdicts.json`", "results/small/verdicts.json", "results/other/verdicts.json", ("verify",)),
    Kind("a figure", "results/small/figures/size.svg", "results/small/figures/curves.svg", ("verify",)),
    Kind("a report", "results/small/report.md", "results/other/report.md", ("verify",)),
    Kind("`deploy.json`", f"{DEPLOY}/deploy.json", "results/small/metrics.json", ("verify",)),
    Kind("a 1-bit model, `.bin`", f"{DEPLOY}/vgg_small.bin", "other.bin", ("predict", MODEL, "digit.png")),
    Kind("a 1-bit model, `.xml`", MODEL, "other.xml", ("predict", MODEL, "digit.png")),
    Kind(
        "a 1-bit model, where it is made",
        f"{DEPLOY}/vgg_small.bin",
        "other.bin",
        ("deploy", "--network", "vgg_small"),
        made=(f"{DEPLOY}/vgg_small.bin", MODEL, f"{DEPLOY}/deploy.json"),
    ),
    Kind("`SHA256SUMS`", "results/SHA256SUMS", "claims.yaml", ("verify",)),
]


def flipped(content: bytes, place: int) -> bytes:
    """The content with one bit of it changed."""
    at = (2 * place + 1) * len(content) // (2 * PLACES)
    return content[:at] + bytes([content[at] ^ 1 << place]) + content[at + 1 :]


FAULTS: dict[str, Callable[[bytes, bytes], Iterator[bytes]]] = {
    "one bit flipped": lambda own, other: (flipped(own, place) for place in range(PLACES)),
    "cut in half": lambda own, other: iter([own[: len(own) // 2]]),
    "emptied": lambda own, other: iter([b""]),
    "swapped": lambda own, other: iter([other]),
}


@pytest.fixture(scope="module")
def house(small_trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that is trained, judged, exported and listed, and another one beside it."""
    house = tmp_path_factory.mktemp("house") / "house"
    shutil.copytree(small_trained, house)
    shutil.copyfile(REPOSITORY / "claims.yaml", house / "claims.yaml")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(house / "digit.png")
    other = small_settings(study="other", pretrain={"learning_rate": 0.02}, ablations=[], variants={})
    other["variants"] = {}
    for name, settings in (("small", small_settings()), ("other", other)):
        write_params(house / "studies" / f"{name}.yaml", settings)
    done = [
        ("ablate", "--variant", "no_l2", *WHO),
        ("keep", *WHO),
        ("keep", *WHO, "--variant", "no_l2"),
        ("run", "--params", "studies/other.yaml"),
        ("export", *WHO, "--variant", "no_l2", "--to", "other"),
    ]
    for study in ("small", "other"):
        stages = ("deploy", "--network", "vgg_small"), ("aggregate",), ("agreement",), ("report",)
        done += [(*stage, "--params", f"studies/{study}.yaml") for stage in stages]
    for arguments in (*done, ("report", "--replication")):
        outcome = command(*arguments, folder=house)
        assert outcome.status == 0, (arguments, outcome.err)
    assert command("verify", folder=house).status in (0, 1, 3)
    return house


def checkpointed(house: Path) -> Path:
    """The newest checkpoint of a training of CHILD that was stopped after some steps."""
    run = Run(network="vgg_small", variant="no_l2", seed=0)
    for _ in range(3):  # a deadline in the past: one step each
        with pytest.raises(Interrupted):
            train_run(small_study(), run, house / "results", deadline=time.monotonic() - 1)
    return max((house / CHILD / "checkpoints").iterdir())


TABLE: dict[str, dict[str, str]] = {}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.what} {kind.asked[0]}")
def test_no_damaged_file_is_taken_for_a_whole_one(kind: Kind, fault: str, house: Path, tmp_path: Path) -> None:
    """Refused in one line with nothing written; or made again, the same as before."""
    pristine = {name: (house / name).read_bytes() for name in kind.made}
    other = (house / kind.swapped).read_bytes()
    said = set()
    shutil.copytree(house, tmp_path / "start")
    for name in kind.removed:
        (tmp_path / "start" / name).unlink()
    path = checkpointed(tmp_path / "start") if kind.path == "checkpoint" else tmp_path / "start" / kind.path
    own = path.read_bytes()
    for number, content in enumerate(FAULTS[fault](own, other)):
        assert content != own
        place = tmp_path / str(number)
        shutil.copytree(tmp_path / "start", place)
        (place / path.relative_to(tmp_path / "start")).write_bytes(content)
        before = tree(place)
        outcome = command(*kind.asked, folder=place)
        if outcome.status == 0 and kind.made:
            assert {name: (place / name).read_bytes() for name in kind.made} == pristine
            said.add("made again, the same")
        else:
            assert (outcome.status, outcome.err.count("\n")) == (2, 1), (number, outcome)
            assert outcome.err.startswith("error: ")
            assert tree(place) == before
            said.add("refused")
        shutil.rmtree(place)
    assert len(said) == 1, said
    TABLE.setdefault(f"{kind.what} | `{kind.asked[0]}`", {})[fault] = said.pop()


def test_the_documents_table_is_what_was_found() -> None:
    if len(TABLE) < len(KINDS) or any(len(found) < len(FAULTS) for found in TABLE.values()):
        pytest.skip("the table needs every fault of this file, in one process")
    lines = [f"| file | next command | {' | '.join(FAULTS)} |", "|---|---|---|---|---|---|"]
    lines += [f"| {name} | {' | '.join(found[fault] for fault in FAULTS)} |" for name, found in TABLE.items()]
    table = "\n".join(lines) + "\n"
    if os.environ.get("WRITE_DOCS"):
        assert replace_between(DOCUMENT, "faults", table)
    assert table in DOCUMENT.read_text("utf-8"), "write it anew: WRITE_DOCS=1 pytest tests/test_faults.py"


def test_every_test_that_the_document_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`", DOCUMENT.read_text("utf-8"))
    assert len(named) > 20
    for name, test in named:
        assert f"def {test}" in (REPOSITORY / name).read_text("utf-8"), (name, test)

"""Damaged evidence: what reads a file says in one line which it is and what makes it anew, and writes nothing."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from synthetic import ROOT, small_study, write_results

from helpers import command, tree, write_params
from trained_binarization.evidence.figures import plain, save

REPORT, REPLICATION, AGGREGATE = ("report",), ("report", "--replication"), ("aggregate",)
VERDICTS = "results/small/verdicts.json"
SIZE = "results/small/figures/size.svg"
DEPLOYED = "results/small/deploy/vgg_small/deploy.json"
HISTORY = "results/small/runs/vgg_small/no_l2/seed1/history.csv"
INFERENCE, BARS = "results/benchmarks/inference.json", "results/benchmarks/inference.svg"

Break = Callable[[Path], object]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A house with a study's results, its exported network and the inference benchmark."""
    house = tmp_path_factory.mktemp("house")
    (house / "studies").mkdir()
    for name in ("claims.yaml", "README.md"):
        shutil.copyfile(ROOT / name, house / name)
    for name in ("studies/small.yaml", "params.yaml"):
        write_params(house / name, small_study().model_dump(by_alias=True))
    write_results(small_study(), house / "results")
    shutil.copytree(ROOT / "results" / "benchmarks", house / "results" / "benchmarks")
    shutil.copytree(ROOT / "results" / "cifar10-cpu" / "deploy", house / "results" / "small" / "deploy")
    for arguments in (AGGREGATE, REPORT, REPLICATION):
        outcome = command(*arguments, folder=house)
        assert outcome.status == 0, outcome.err
    return house


@pytest.fixture
def house(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "house")
    return tmp_path / "house"


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(128, 256)))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replaced(before: str, after: str) -> Break:
    def breaks(path: Path) -> None:
        text = path.read_text("utf-8")
        assert before in text
        path.write_text(text.replace(before, after), encoding="utf-8")

    return breaks


def without(key: str) -> Break:
    def breaks(path: Path) -> None:
        content = json.loads(path.read_text("utf-8"))
        del content[key]
        path.write_text(json.dumps(content), encoding="utf-8")

    return breaks


WAYS = [cut, emptied, binary, a_folder]
FILES = [
    (HISTORY, AGGREGATE, "ablate --params studies/small.yaml --network vgg_small --variant no_l2"),
    (VERDICTS, REPORT, "make it anew with: trained-binarization aggregate"),
    (VERDICTS, REPLICATION, "make it anew with: trained-binarization aggregate"),
    (SIZE, REPORT, "make it anew with: trained-binarization aggregate"),
    (SIZE, REPLICATION, "make it anew with: trained-binarization aggregate"),
    (DEPLOYED, REPLICATION, "deploy --params studies/small.yaml --network vgg_small --again"),
    (INFERENCE, REPLICATION, "measure it anew with: trained-binarization benchmark inference"),
    (BARS, REPLICATION, "measure it anew with: trained-binarization benchmark inference"),
]
CASES = [(name, way, arguments, remedy) for name, arguments, remedy in FILES for way in WAYS]
CASES += [
    (VERDICTS, without("accuracies"), REPORT, "accuracies: found damaged or foreign content"),
    (VERDICTS, replaced('"study": "small"', '"study": "cifar10"'), REPORT, "found 'cifar10'; allowed: 'small'"),
    (VERDICTS, replaced('"l2_helps"', '"other"'), REPORT, "claim: found 'other', not in claims.yaml"),
    (VERDICTS, replaced('"clipped_ste"', '"a](x) <b>"'), REPORT, "found damaged or foreign content"),
    (VERDICTS, replaced('"runs_done": 21', '"runs_done": NaN'), REPORT, "found damaged or foreign content"),
    (DEPLOYED, without("proof"), REPLICATION, "exported without bytes or proof"),
    (DEPLOYED, without("status"), REPLICATION, "status: found damaged or foreign content"),
    (INFERENCE, without("packages"), REPLICATION, "packages: found damaged or foreign content"),
    (INFERENCE, replaced('"5 %"', '"6 %"'), REPLICATION, "found damaged or foreign content"),
    (BARS, lambda path: path.unlink(), REPLICATION, "No such file or directory"),
    (
        SIZE,
        replaced("</defs>", "</defs><script>alert(1)</script>"),
        REPORT,
        "it holds {http://www.w3.org/2000/svg}script",
    ),
    (SIZE, replaced("<g id=", '<g onload="alert(1)" id='), REPORT, "onload"),
    (SIZE, replaced('xlink:href="#', 'xlink:href="https://example.org/#'), REPORT, "with ["),
]


@pytest.mark.parametrize(
    ("name", "breaks", "arguments", "fragment"),
    [pytest.param(*case, id=f"{case[0]} {getattr(case[1], '__name__', '')} {case[3]}") for case in CASES],
)
def test_damaged_evidence_is_one_line(
    name: str, breaks: Break, arguments: tuple[str, ...], fragment: str, house: Path
) -> None:
    breaks(house / name)
    before = tree(house)
    outcome = command(*arguments, folder=house)
    assert outcome.status == 2, outcome
    assert outcome.err.startswith(f"error: {name}: "), outcome.err
    assert outcome.err.count("\n") == 1
    assert fragment in outcome.err
    assert tree(house) == before


def test_figures_show_dollars_as_they_are(tmp_path: Path) -> None:
    figure = Figure()
    figure.text(0, 0, plain("costs $5 and\n$x_{$"))
    save(figure, tmp_path, "dollars")
    assert not re.search(r"mathtext", (tmp_path / "dollars.svg").read_text("utf-8"))
    assert (tmp_path / "dollars.png").stat().st_size > 0

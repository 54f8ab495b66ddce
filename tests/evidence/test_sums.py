"""SHA256SUMS: sha256sum takes it, and verify sees what was changed since."""

import shutil
import subprocess
from pathlib import Path

import pytest
from synthetic import write_data, write_results

from helpers import REPOSITORY, command, write_params
from trained_binarization.errors import UserError
from trained_binarization.evidence.aggregate import aggregate
from trained_binarization.evidence.report import report_replication, report_study
from trained_binarization.evidence.sums import check_sums, write_sums
from trained_binarization.study import Study

RESULTS = REPOSITORY / "results"
RUN = "cifar10/runs/vgg_small/method/seed0"
EVIDENCE = [
    f"{RUN}/record.json",
    f"{RUN}/history.csv",
    f"{RUN}/signs.safetensors",
    "cifar10/data.json",
    "cifar10/tables/claims.md",
    "cifar10/tables/curves.csv",
    "cifar10/figures/size.svg",
    "cifar10/figures/size.png",
    "cifar10/verdicts.json",
    "cifar10/metrics.json",
    "cifar10/report.md",
    "cifar10/deploy/vgg_small/card.md",
    "cifar10/deploy/vgg_small/deploy.json",
    "cifar10/deploy/vgg_small/vgg_small.bin",
    "cifar10/deploy/vgg_small/vgg_small.xml",
    "benchmarks/inference.json",
    "benchmarks/fast-path/table.md",
    "benchmarks/fast-path/params.yaml",
    "benchmarks/fast-path/cifar10-cpu-plain/data.json",
    "recipe-search.csv",
    "report.md",
    "report.html",
]
"""One file of every kind."""


def accepted(results: Path) -> None:
    """The program sha256sum finds every listed file as it is listed."""
    done = subprocess.run(
        ["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=results, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def listed(results: Path) -> list[str]:
    return [line[66:] for line in (results / "SHA256SUMS").read_text("utf-8").splitlines()]


def refused(house: Path) -> str:
    """The one line with which verify refuses the evidence."""
    outcome = command("verify", folder=house)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome
    assert "git checkout -- results" in outcome.err
    assert "trained-binarization report --replication" in outcome.err
    return outcome.err


@pytest.fixture
def evidence(house: Path) -> Path:
    """A house whose results hold a file of every kind, listed."""
    for name in EVIDENCE:
        path = house / "results" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n", "utf-8")
    write_sums(house / "results")
    return house


def test_the_committed_list_fits_the_committed_evidence() -> None:
    assert (RESULTS / "SHA256SUMS").is_file()
    accepted(RESULTS)
    assert check_sums(RESULTS) == []


def test_every_kind_of_file_is_listed_and_nothing_else(evidence: Path) -> None:
    results = evidence / "results"
    for name in (
        f"{RUN}/weights.safetensors",
        f"{RUN}/diverged.json",
        f"{RUN}/checkpoints/record.json",
        f"{RUN}/.record.json.12.partial",
        "cifar10/deploy/vgg_small/.hidden.bin",
        "cifar10/tables/claims (1).md",
        "quick/report.md",
        "quick/tables/claims.md",
        ".hidden/report.md",
    ):
        path = results / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("no committed evidence\n", "utf-8")
    before = (results / "SHA256SUMS").read_bytes()
    assert check_sums(results) == []
    write_sums(results)
    assert (results / "SHA256SUMS").read_bytes() == before
    assert listed(results) == sorted(EVIDENCE)
    accepted(results)


def test_the_replications_report_writes_the_list(house: Path, quick: Study, cifar10: Study) -> None:
    results = Path("results")
    write_params(house / "studies" / "cifar10.yaml", cifar10.model_dump())
    for study in (quick, cifar10):
        write_results(study, results)
        aggregate(study, results, Path("claims.yaml"))
        report_study(study, results, Path("claims.yaml"))
    report_replication(results, Path("claims.yaml"))
    accepted(results)
    there = {path.relative_to(results).as_posix() for path in results.rglob("*") if path.is_file()}
    assert set(listed(results)) == {name for name in there if not name.startswith("quick/")} - {"SHA256SUMS"}
    outcome = command("verify", folder=house)
    assert (outcome.status in (0, 1), outcome.err) == (True, "")
    write_data(quick.model_copy(update={"study": "own"}), results)  # a study of the user's own, not listed yet
    assert command("verify", folder=house) == outcome


@pytest.mark.parametrize("name", EVIDENCE)
def test_verify_sees_one_byte(name: str, evidence: Path) -> None:
    path = evidence / "results" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert refused(evidence).startswith(f"error: results/{name}: its content is not what results/SHA256SUMS lists;")


def test_verify_sees_what_is_gone(evidence: Path) -> None:
    shutil.rmtree(evidence / "results" / RUN)
    message = refused(evidence)
    assert message.startswith(
        f"error: results/{RUN}/history.csv: is missing, but listed in results/SHA256SUMS (the first"
    )
    assert "(the first of 3 such files)" in message


def test_verify_sees_what_was_added(evidence: Path) -> None:
    shutil.copytree(evidence / "results" / RUN, evidence / "results" / RUN.replace("seed0", "seed1"))
    (evidence / "results/report.md").write_text("changed\n", "utf-8")
    expected = f"error: results/{RUN.replace('seed0', 'seed1')}/history.csv: is there, but not listed"
    message = refused(evidence)
    assert message.startswith(expected)
    assert "(the first of 4 such files)" in message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\xff\n",
        b"report.md\n",
        b"0" * 63 + b"  report.md\n",
        b"0" * 64 + b" report.md\n",
        b"0" * 64 + b"  report.md",
        b"0" * 64 + b"  ../claims.yaml\n",
        b"0" * 64 + b"  /etc/hostname\n",
        (b"0" * 64 + b"  report.md\n") * 2,
    ],
)
def test_a_damaged_list_is_one_line(content: bytes, evidence: Path) -> None:
    (evidence / "results/SHA256SUMS").write_bytes(content)
    with pytest.raises(UserError, match=r"results/SHA256SUMS: "):
        check_sums(evidence / "results")
    assert refused(evidence).startswith("error: results/SHA256SUMS: ")


def test_without_a_list_verify_says_nothing_of_it(house: Path) -> None:
    assert check_sums(house / "results") == []
    outcome = command("verify", folder=house)
    assert (outcome.status, outcome.err) == (3, "")

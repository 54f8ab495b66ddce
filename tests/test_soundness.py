"""A record is done only if it is sound: it fits its path, its own settings and its history."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from helpers import command, small_study
from trained_binarization.datasets.digits import CHECKSUM
from trained_binarization.files import sha256
from trained_binarization.records import WEIGHTS, canonical, run_folder, status
from trained_binarization.study import FULL_PRECISION, METHOD, Run, load_study
from trained_binarization.training.weights import SIGNS

REPOSITORY = Path(__file__).resolve().parents[1]
CLAIMS = REPOSITORY / "claims.yaml"
PARENT = Run(network="vgg_small", variant=FULL_PRECISION, seed=0)
CHILD = Run(network="vgg_small", variant=METHOD, seed=0)

Edit = Callable[[dict[str, Any]], None]


def _set(*keys: str, to: Any) -> Edit:
    def edit(record: dict[str, Any]) -> None:
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = to

    return edit


def _add(points: float) -> Edit:
    def edit(record: dict[str, Any]) -> None:
        record["last"]["accuracy"] += points
        record["best"]["accuracy"] += points

    return edit


def _without_training(record: dict[str, Any]) -> None:
    record["settings"] = {}
    keys = ("method_version", "settings", "seed")
    what = {key: record[key] for key in keys} | {"data": record["data_checksum"]}
    what["parent"] = record["parent"]["fingerprint"]
    record["fingerprint"] = hashlib.sha256(canonical(what).encode()).hexdigest()


EDITS: dict[str, Edit] = {
    "another accuracy": _add(-1.0),
    "an accuracy beyond 100 %": _set("last", "accuracy", to=1e9),
    "a negative accuracy": _set("last", "accuracy", to=-1.0),
    "no settings": _set("settings", to={}),
    "other settings": _set("settings", "training", "epochs", to=2),
    "another seed": _set("seed", to=1),
    "another run's name": _set("variant", to="no_l2"),
    "another study's name": _set("study", to="quick"),
    "another network": _set("network", to="alexnet"),
    "another fingerprint": _set("fingerprint", to="0" * 64),
    "another parent": _set("parent", to=None),
    "a negative time": _set("wall_seconds", to=-1.0),
    "a negative count": _set("interruptions", to=-1),
    "settings without a training, and their own fingerprint": _without_training,
    "more epochs than its history": _set("epochs", to=2),
    "a best epoch that its history has not": _set("best", "epoch", to=7),
    "another loss": _set("last", "loss", to=0.5),
    "another hash of its history": _set("history_sha256", to="0" * 64),
    "a number as text": _set("epochs", to="1"),
    "an unknown key": _set("corrected", to=True),
}


def _state(small: Path, run: Run = CHILD) -> tuple[str, str]:
    found = status(small / "results", small_study(), run, CHECKSUM)
    assert (found.record is None) == (found.state != "done")
    return found.state, found.reason


def _refused(small: Path, path: Path) -> None:
    """Told in one line with a remedy, and never aggregated."""
    ended = command("aggregate", "--claims", CLAIMS, folder=small)
    assert ended.status == 2
    assert ended.err.count("\n") == 1
    assert str(path.parent.relative_to(small)) in ended.err
    assert "train the run again: trained-binarization" in ended.err
    assert not (small / "results/small/tables").exists()


@pytest.mark.parametrize("kind", EDITS)
def test_an_edited_record_is_unsound(kind: str, small: Path) -> None:
    path = run_folder(small / "results", small_study(), CHILD) / "record.json"
    assert _state(small) == ("done", "")
    record = json.loads(path.read_text())
    EDITS[kind](record)
    path.write_text(json.dumps(record, indent=2))
    state, reason = _state(small)
    assert state == "unsound"
    assert "record.json" in reason
    _refused(small, path)


def _number_changed(path: Path) -> None:
    text = path.read_text()
    last = text.rstrip().rsplit("\n", 1)[1].split(",")[2]
    path.write_text(text.replace(last, str(float(last) / 2)))


def _first_row_gone(path: Path) -> None:
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *rows[1:]]) + "\n")


HISTORIES: dict[str, Callable[[Path], None]] = {
    "a changed number": _number_changed,
    "cut in the middle": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "without a row": _first_row_gone,
    "a row more": lambda path: path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n"),
    "empty": lambda path: path.write_bytes(b""),
    "not text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "other line ends": lambda path: path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n")),
}


@pytest.mark.parametrize("rehashed", [False, True])
@pytest.mark.parametrize("kind", HISTORIES)
def test_an_edited_history_is_unsound(kind: str, rehashed: bool, small: Path) -> None:
    folder = run_folder(small / "results", small_study(), CHILD)
    HISTORIES[kind](folder / "history.csv")
    if rehashed:  # as somebody would who edits both; what stays possible is an edit that says the same
        record = json.loads((folder / "record.json").read_text())
        record["history_sha256"] = sha256(folder / "history.csv")
        (folder / "record.json").write_text(json.dumps(record))
    sound = rehashed and kind in ("a changed number", "other line ends")  # the training loss stands nowhere else
    assert _state(small)[0] == ("done" if sound else "unsound")
    if not sound:
        ended = command("aggregate", "--claims", CLAIMS, folder=small)
        assert ended.status == 2
        assert ended.err.count("\n") == 1


def test_another_runs_files_are_unsound(small: Path) -> None:
    study = small_study()
    folder, other = (run_folder(small / "results", study, run) for run in (CHILD, PARENT))
    shutil.copy(other / "history.csv", folder / "history.csv")
    assert _state(small)[0] == "unsound"
    shutil.copy(other / "record.json", folder / "record.json")
    assert _state(small) == ("unsound", f"{folder / 'record.json'}: it is the record of small/{PARENT}")


def test_a_record_that_was_edited_after_it_was_aggregated_is_not_reported(small: Path) -> None:
    assert command("aggregate", "--claims", CLAIMS, folder=small).status == 0
    path = run_folder(small / "results", small_study(), CHILD) / "record.json"
    record = json.loads(path.read_text())
    EDITS["another accuracy"](record)
    path.write_text(json.dumps(record))
    ended = command("report", "--claims", CLAIMS, folder=small)
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert not (small / "results/small/report.md").exists()


@pytest.mark.parametrize("name", ["record.json", "history.csv"])
def test_half_of_a_run_is_no_run(name: str, small: Path) -> None:
    (run_folder(small / "results", small_study(), CHILD) / name).unlink()
    assert _state(small)[0] == "missing"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff"])
def test_a_damaged_record_is_unsound_and_trained_again(
    content: bytes, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_folder(small / "results", small_study(), CHILD) / "record.json"
    before = json.loads(path.read_text())
    path.write_bytes(content)
    assert _state(small)[0] == "unsound"
    ended = command("finetune", "--network", "vgg_small", "--seed", "0", folder=small)
    assert ended.status == 0, ended.err
    assert "trained once more, since" in ended.out
    after = json.loads(path.read_text())
    for key in ("fingerprint", "weights_sha256", "history_sha256", "last"):
        assert after[key] == before[key]


def test_every_committed_record_is_done() -> None:
    results, found = REPOSITORY / "results", 0
    for path in sorted((REPOSITORY / "studies").glob("*.yaml")):
        study = load_study(path)
        for run in study.runs():
            if (record := run_folder(results, study, run) / "record.json").exists():
                checksum = json.loads(record.read_text())["data_checksum"]
                assert status(results, study, run, checksum).state == "done", record
                found += 1
    assert found >= 50


def _flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def _opposite_signs(path: Path) -> None:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    opposite = {name: ~tensor if tensor.dtype == torch.uint8 else tensor for name, tensor in load_file(path).items()}
    save_file(opposite, path, metadata)


KEPT: dict[str, Callable[[Path], None]] = {
    "one bit": _flip_bit,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "empty": lambda path: path.write_bytes(b""),
    "another run's": lambda path: shutil.copy(path.parents[2] / "no_l2" / "seed0" / path.name, path),
    "all signs opposite": _opposite_signs,
}


@pytest.mark.parametrize(
    ("name", "fault"),
    [(name, fault) for name in (WEIGHTS, SIGNS) for fault in KEPT if (name, fault) != (WEIGHTS, "all signs opposite")],
)
def test_kept_weights_and_signs_are_used_only_with_the_records_hash(name: str, fault: str, small: Path) -> None:
    for variant in (METHOD, "no_l2"):
        assert command("keep", "--network", "vgg_small", "--seed", "0", "--variant", variant, folder=small).status == 0
    folder = run_folder(small / "results", small_study(), CHILD)
    if name == SIGNS:
        (folder / WEIGHTS).unlink()
    evaluate = ("evaluate", "--network", "vgg_small", "--seed", "0")
    assert command(*evaluate, folder=small).status == 0
    KEPT[fault](folder / name)
    ended = command(*evaluate, folder=small)
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith(f"error: results/small/{CHILD.folder}/{name}: ")


def test_deploy_refuses_weights_that_do_not_give_the_records_accuracy(small: Path) -> None:
    # The forger was careful: record, history and hash agree with each other, but not with the weights.
    pytest.importorskip("openvino", reason="openvino is not installed")
    folder = run_folder(small / "results", small_study(), CHILD)
    path, history = folder / "record.json", folder / "history.csv"
    record = json.loads(path.read_text(encoding="utf-8"))
    honest = record["last"]["accuracy"]
    forged = honest - 5.0
    for row in ("last", "best"):
        record[row]["accuracy"] = forged
    lines = history.read_text(encoding="utf-8").splitlines()
    column = lines[0].split(",").index("evaluation_accuracy")
    cells = lines[-1].split(",")
    cells[column] = repr(forged)
    history.write_text("\n".join([*lines[:-1], ",".join(cells)]) + "\n", encoding="utf-8")
    path.write_text(json.dumps(record | {"history_sha256": sha256(history)}, indent=2) + "\n", encoding="utf-8")
    assert _state(small)[0] == "done"
    ended = command("deploy", "--network", "vgg_small", folder=small)
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert f"accuracy from the kept weights: found {honest:.2f} %; allowed: {forged:.2f} %" in ended.err
    assert not list((small / "results").rglob("*.xml"))

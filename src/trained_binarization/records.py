"""Records: what was trained, on what, by which code, with which result. Fingerprints, reading, status.

The files of a run lie in results/<study>/runs/<network>/<variant>/seed<k>/:
record.json and history.csv (in git), weights.safetensors (not in git; its SHA-256 stands in the record).
"""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import fields
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from trained_binarization.binarization.method import Method
from trained_binarization.errors import UserError
from trained_binarization.files import read_model, refresh, sha256
from trained_binarization.study import ImageFolder, Run, Study, command

METHOD_VERSION = 1
"""Rises when training changes its meaning; a faster way to the same numbers leaves it."""

FIRST_SWITCHES = {
    "activation_values",
    "activation_estimator",
    "activation_window",
    "activation_scaling",
    "weight_estimator",
    "weight_scaling",
    "weight_scaling_granularity",
    "weight_scaling_l2",
    "latent_std",
    "initial_alpha",
    "initialization",
}
"""The switches of `Method` that the first records hold: they count in every fingerprint. A new one is not added here:
all of a method's switches have defaults, so a default cannot say which of them is new."""

WEIGHTS = "weights.safetensors"
"""A run's weights as trained, latent ones included; not in git."""


DIVERGED = "diverged.json"
"""What a run that diverged leaves in place of its record; neither engine declares it, and git ignores it."""

HISTORY = ("epoch", "train_loss", "train_accuracy", "evaluation_loss", "evaluation_accuracy")
"""The columns of a run's history.csv that are read by name."""

Percent = Annotated[float, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0)]


class _Strict(BaseModel):
    """No unknown key, no conversion, no number that is not finite."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Evaluation(_Strict):
    """Loss (nats per image) and accuracy (percent) after an epoch, in float32 on every scored image."""

    epoch: Annotated[int, Field(ge=1)]
    loss: NotNegative
    accuracy: Percent
    top5: Percent | None = None  # where there are classes enough for it to say something


class Parent(_Strict):
    """The run whose weights this run started from."""

    run: str
    fingerprint: str
    weights_sha256: str


class Record(_Strict):
    """One run's record. `last` is the result that counts; `best` is shown beside it and chosen by nobody."""

    study: str
    network: str
    variant: str
    seed: int
    stand_in: str | None
    fingerprint: str
    method_version: int
    settings: dict[str, Any]  # dataset, architecture, training, method, autocast: resolved
    compute: dict[str, Any]
    data_checksum: str
    parent: Parent | None
    scored: str  # "test" or "validation"
    images_scored: Count
    images_trained_on: Count
    epochs: Annotated[int, Field(ge=1)]
    last: Evaluation
    best: Evaluation
    accuracy_views: Percent | None = None  # mean over fixed views of the scored images (datasets/views.py)
    alphas_at_floor: Count
    weights_sha256: str
    signs_sha256: str | None = None  # of the kept signs and factors (training/weights.py); None in full precision
    history_sha256: str
    layers: list[dict[str, Any]]
    wall_seconds: NotNegative
    images_per_second: NotNegative
    interruptions: Count
    commit: str
    clean: bool | None  # src/ and the lock equal the commit's; None where that is not known
    packages: dict[str, str]
    python: str
    device: str
    driver: str | None
    threads: int
    processes: int = 1


class Divergence(_Strict):
    """diverged.json: where a training met the first value that is not finite."""

    fingerprint: str
    epoch: Annotated[int, Field(ge=1)]
    found: str


class Data(_Strict):
    """results/<study>/data.json: which images, by checksum."""

    dataset: str
    checksum: str
    train_images: Count
    test_images: Count
    files: dict[str, str]  # name to MD5; none where the checksum is over the contents of every file


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal settings give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def settings_of(study: Study, run: Run) -> dict[str, Any]:
    """Every setting that says what the run trains (not where it lies, nor how fast it is computed).

    A setting with a default was added after the first records. It counts only where it differs from its default, so
    older records keep their fingerprints.
    """
    dataset = study.dataset.model_dump(exclude={"root", "download", "cache", "workers"}, exclude_defaults=True)
    if isinstance(study.dataset, ImageFolder):
        dataset["image_size"] = study.dataset.image_size[run.network]
    return {
        "network": run.network,
        "architecture": study.architecture[run.network].model_dump(exclude_defaults=True),
        "dataset": dataset,
        "training": study.training(run).model_dump(exclude_defaults=True),
        "method": _switches(study.variant(run.variant)),
        "autocast": study.compute.autocast,
    }


def _switches(method: Method | None) -> dict[str, Any] | None:
    """The method's switches; one that was added after the first records only where it differs from its default."""
    if method is None:
        return None
    return {
        switch.name: value
        for switch in fields(method)
        if (value := getattr(method, switch.name)) != switch.default or switch.name in FIRST_SWITCHES
    }


def fingerprint(study: Study, run: Run, data_checksum: str) -> str:
    """SHA-256 over what is trained: settings, seed, data, the parent's fingerprint, the method's version."""
    parent = study.parent(run)
    of_parent = fingerprint(study, parent, data_checksum) if parent else None
    return _fingerprint(METHOD_VERSION, settings_of(study, run), run.seed, data_checksum, of_parent)


def _fingerprint(version: int, settings: dict[str, Any], seed: int, data: str, parent: str | None) -> str:
    what = {"method_version": version, "settings": settings, "seed": seed, "data": data, "parent": parent}
    return hashlib.sha256(canonical(what).encode()).hexdigest()


def read_record(folder: Path) -> Record | None:
    """The record in a run's folder; None where there is none; UserError where it is damaged."""
    path = folder / "record.json"
    return read_model(path, Record, "allowed: a whole record; delete the file to train anew") if path.exists() else None


def data_path(results: Path, study: Study) -> Path:
    """Where `prepare` writes what it found."""
    return results / study.study / "data.json"


def read_data(results: Path, study: Study) -> Data:
    """What `prepare` wrote for the study."""
    path = data_path(results, study)
    if not path.exists():
        raise UserError(f"{path}: no such file; make it with: {command('prepare', study)}")
    data = read_model(path, Data, f"make it anew with: {command('prepare', study)}")
    if data.dataset != study.dataset.name:
        raise UserError(
            f"{path}: dataset: found '{data.dataset}'; allowed: '{study.dataset.name}', the study's; "
            f"make it anew with: {command('prepare', study)}"
        )
    return data


def run_folder(results: Path, study: Study, run: Run) -> Path:
    """The folder of a run's files."""
    return results / study.study / run.folder


class Status(NamedTuple):
    """Whether a run is done, and its record where it is.

    missing: there is no record, or no history. diverged: there is no record, because its training met a value that is
    not finite. unsound: the record contradicts itself, its history or its place. stale: it is of other settings.
    """

    state: Literal["done", "missing", "diverged", "unsound", "stale"]
    record: Record | None
    reason: str


def status(results: Path, study: Study, run: Run, data_checksum: str) -> Status:
    """The one decision whether a run is done. Every user of records asks it."""
    folder, asked = run_folder(results, study, run), fingerprint(study, run, data_checksum)
    if not (folder / "record.json").exists():
        divergence = _divergence(folder)
        if divergence and divergence.fingerprint == asked:
            return Status("diverged", None, f"diverged in epoch {divergence.epoch}: {divergence.found}")
        return Status("missing", None, "no record yet")
    if not (folder / "history.csv").exists():
        return Status("missing", None, "its history.csv is missing")
    try:
        record = read_record(folder)
        assert record is not None
        fault = _contradiction(record, folder, study.study, run)
    except UserError as error:
        return Status("unsound", None, str(error))
    if fault:
        return Status("unsound", None, f"{folder / 'record.json'}: {fault}")
    if record.fingerprint != asked:
        reason = f"its record is of other settings (fingerprint {record.fingerprint[:8]}, not {asked[:8]})"
        return Status("stale", None, reason)
    return Status("done", record, "")


def _divergence(folder: Path) -> Divergence | None:
    path = folder / DIVERGED
    try:
        return read_model(path, Divergence, "delete it") if path.exists() else None
    except UserError:  # damaged: it says nothing, and the run is missing
        return None


def sound(results: Path, study: str) -> list[Record]:
    """Every record below a study's folder, whatever its settings; UserError where one is not sound."""
    found = []
    for path in sorted((results / study / "runs").glob("*/*/seed*/record.json")):
        folder = path.parent
        record = read_record(folder)
        assert record is not None
        if fault := _contradiction(record, folder, study, folder.relative_to(results / study / "runs").as_posix()):
            raise UserError(f"{path}: {fault}; restore the file, or delete it and train the run again")
        found.append(record)
    return found


def _contradiction(record: Record, folder: Path, study: str, run: Run | str) -> str | None:
    """What a record says against itself or its place; None where it is sound. A faulty history is a UserError."""
    found = f"{record.study}/{record.network}/{record.variant}/seed{record.seed}"
    if found != f"{study}/{run}":
        return f"it is the record of {found}"
    parent = record.parent.fingerprint if record.parent else None
    own = _fingerprint(record.method_version, record.settings, record.seed, record.data_checksum, parent)
    if record.fingerprint != own:
        return "its fingerprint is not that of its own settings, seed, data and parent"
    training = record.settings.get("training")
    if not isinstance(training, dict) or record.epochs != training.get("epochs"):
        return f"it has {record.epochs} epochs, not those of its settings"
    path = folder / "history.csv"
    if sha256(path) != record.history_sha256:
        raise UserError(f"{path}: its SHA-256 is not the one in record.json")
    epochs, rows = _read_history(path)
    if record.epochs != epochs or not rows or rows[-1].epoch != epochs:
        raise UserError(f"{path}: found {epochs} epochs; the record has {record.epochs}, the last of them evaluated")
    best = max(rows, key=lambda row: row.accuracy)
    for name, said, right in (("last", record.last, rows[-1]), ("best", record.best, best)):
        if (said.epoch, _written(said.accuracy), _written(said.loss)) != (right.epoch, right.accuracy, right.loss):
            return f"`{name}` is not what its history says ({said.accuracy:.2f} %, there {right.accuracy:.2f} %)"
    return None


def _written(value: float) -> float:
    """A number as history.csv holds it."""
    return float(f"{value:.8g}")


def _read_history(path: Path) -> tuple[int, list[Evaluation]]:
    """(number of epochs in a history.csv, those that were evaluated); UserError where it is damaged."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if missing := [column for column in HISTORY if rows and column not in rows[0]]:
            raise ValueError(f"no column {missing[0]}")
        if [int(row["epoch"]) for row in rows] != list(range(1, len(rows) + 1)):
            raise ValueError("its epochs are not 1, 2, 3 and so on")
        if any(not isfinite(float(value)) for row in rows for value in row.values() if value != ""):
            raise ValueError("a number is not finite")
        evaluated = [row for row in rows if row["evaluation_accuracy"] != ""]
        return len(rows), [
            Evaluation(
                epoch=int(row["epoch"]),
                loss=float(row["evaluation_loss"]),
                accuracy=float(row["evaluation_accuracy"]),
            )
            for row in evaluated
        ]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"{path}: found damaged content ({error})") from None


def record_of(results: Path, study: Study, run: Run) -> Record:
    """The record of a run that is done; UserError where it is not, with the command that makes it."""
    found = status(results, study, run, read_data(results, study).checksum)
    if found.record is None:
        folder = run_folder(results, study, run)
        raise UserError(f"{folder}: the run is {found.state}: {found.reason}; make it with: {study.command(run)}")
    return found.record


def needs_training(results: Path, study: Study, run: Run, data_checksum: str) -> str | None:
    """Why the run has to be trained; None where it is done and no pending run needs weights that are not here.

    Weights are not in git. A parent that is done, but whose weights are not here, is trained again while one of its
    children is pending.
    """
    found = status(results, study, run, data_checksum)
    if found.record is None:
        return found.reason
    children = [one for one in study.runs() if study.parent(one) == run]
    if all(status(results, study, child, data_checksum).state == "done" for child in children):
        return None
    weights = run_folder(results, study, run) / WEIGHTS
    here = weights.exists() and sha256(weights) == found.record.weights_sha256
    return None if here else "it is done, but pending runs need its weights, which are not here"


def untrained(results: Path, study: Study) -> dict[Run, str]:
    """Every run of the study that needs training, and why.

    Where data.json is missing, the checksum in the record counts. `prepare` makes data.json again.
    """
    known = read_data(results, study).checksum if data_path(results, study).exists() else None
    found = {}
    for run in study.runs():
        checksum = known or _recorded_checksum(run_folder(results, study, run))
        if why := needs_training(results, study, run, checksum):
            found[run] = why
    return found


def _recorded_checksum(folder: Path) -> str:
    try:
        record = read_record(folder)
        return record.data_checksum if record else ""
    except UserError:
        return ""  # no checksum: whatever is asked of the record, it is not done


def finished(results: Path, study: Study, run: Run) -> Record | None:
    """The record of a run that needs no training, its files' times refreshed; None where it has to be trained.

    A parent that was trained anew since, to other weights, is told: the record stands for what it names.
    """
    data_checksum = read_data(results, study).checksum
    if needs_training(results, study, run, data_checksum):
        return None
    record = read_record(run_folder(results, study, run))
    assert record is not None
    if outlived(results, study, run):
        again = f"{study.command(run)} --again"
        print(f"{run}: its parent was trained anew since, to other weights; to start from these: {again}")
    for name in ("record.json", "history.csv"):
        refresh(run_folder(results, study, run) / name)
    return record


def lacks_weights(results: Path, study: Study, run: Run) -> bool:
    """Whether the run is done, but its weights are not here."""
    done = status(results, study, run, read_data(results, study).checksum).state == "done"
    return done and not (run_folder(results, study, run) / WEIGHTS).exists()


def outlived(results: Path, study: Study, run: Run) -> bool:
    """Whether the run is done, but its parent was trained anew since, to other weights."""
    parent = study.parent(run)
    record, of_parent = (read_record(run_folder(results, study, one)) if one else None for one in (run, parent))
    return bool(record and record.parent and of_parent and record.parent.weights_sha256 != of_parent.weights_sha256)

"""Records: what was trained, on what, by which code, with which result. Fingerprints, reading, status.

The files of a run lie in results/<study>/runs/<network>/<variant>/seed<k>/:
record.json and history.csv (in git), weights.safetensors (not in git; its SHA-256 stands in the record).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from trained_binarization.errors import UserError
from trained_binarization.files import read_model, refresh, sha256
from trained_binarization.study import ImageFolder, Run, Study

METHOD_VERSION = 1
"""Rises when training changes its meaning; a faster way to the same numbers leaves it."""

WEIGHTS = "weights.safetensors"
"""A run's weights as trained, latent ones included; not in git."""


class Evaluation(BaseModel):
    """Loss (nats per image) and accuracy (percent) after an epoch, in float32 on every scored image."""

    model_config = ConfigDict(extra="forbid", strict=True)
    epoch: int
    loss: float
    accuracy: float
    top5: float | None = None  # where there are classes enough for it to say something


class Parent(BaseModel):
    """The run whose weights this run started from."""

    model_config = ConfigDict(extra="forbid", strict=True)
    run: str
    fingerprint: str
    weights_sha256: str


class Record(BaseModel):
    """One run's record. `last` is the result that counts; `best` is shown beside it and chosen by nobody."""

    model_config = ConfigDict(extra="forbid", strict=True)
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
    images_scored: int
    images_trained_on: int
    epochs: int
    last: Evaluation
    best: Evaluation
    accuracy_views: float | None = None  # percent, the mean over fixed views of every scored image (datasets/views.py)
    alphas_at_floor: int
    weights_sha256: str
    signs_sha256: str | None = None  # of the kept signs and factors (training/weights.py); None in full precision
    history_sha256: str | None = None
    layers: list[dict[str, Any]]
    wall_seconds: float
    images_per_second: float
    interruptions: int
    commit: str
    clean: bool | None  # src/ and the lock equal the commit's; None where that is not known
    packages: dict[str, str]
    python: str
    device: str
    driver: str | None
    threads: int
    processes: int = 1


class Data(BaseModel):
    """results/<study>/data.json: which images, by checksum."""

    model_config = ConfigDict(extra="forbid", strict=True)
    dataset: str
    checksum: str
    train_images: int
    test_images: int
    files: dict[str, str]  # name to MD5; none where the checksum is over the contents of every file


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal settings give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def settings_of(study: Study, run: Run) -> dict[str, Any]:
    """Every setting that says what the run trains (not where it lies, nor how fast it is computed)."""
    method = study.variant(run.variant)
    dataset = study.dataset.model_dump(exclude={"root", "download", "cache", "workers"})
    if isinstance(study.dataset, ImageFolder):
        dataset["image_size"] = study.dataset.image_size[run.network]
        if study.dataset.decoder == "pillow":  # as in the records of before there was another
            del dataset["decoder"]
    elif study.dataset.cutout is None:  # as in the records of before there was one
        del dataset["cutout"]
    return {
        "network": run.network,
        "architecture": study.architecture[run.network].model_dump(),
        "dataset": dataset,
        "training": study.training(run).model_dump(exclude_none=True),
        "method": method.model_dump() if method else None,
        "autocast": study.compute.autocast,
    }


def fingerprint(study: Study, run: Run, data_checksum: str) -> str:
    """SHA-256 over what is trained: settings, seed, data, the parent's fingerprint, the method's version."""
    parent = study.parent(run)
    what = {
        "method_version": METHOD_VERSION,
        "settings": settings_of(study, run),
        "seed": run.seed,
        "data": data_checksum,
        "parent": fingerprint(study, parent, data_checksum) if parent else None,
    }
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
        raise UserError(f"{path}: no such file; make it with: trained-binarization prepare")
    data = read_model(path, Data, "make it anew with: trained-binarization prepare")
    if data.dataset != study.dataset.name:
        raise UserError(
            f"{path}: dataset: found '{data.dataset}'; allowed: '{study.dataset.name}', the study's; "
            "make it anew with: trained-binarization prepare"
        )
    return data


def run_folder(results: Path, study: Study, run: Run) -> Path:
    """The folder of a run's files."""
    return results / study.study / run.folder


def status(results: Path, study: Study, run: Run, data_checksum: str) -> tuple[str, Record | None]:
    """('done', record), ('missing', None) or ('stale', the record of other settings, never to be aggregated)."""
    folder = run_folder(results, study, run)
    record = read_record(folder)
    if record is None or not (folder / "history.csv").exists():
        return "missing", None
    fresh = record.fingerprint == fingerprint(study, run, data_checksum)
    return ("done" if fresh else "stale"), record


def record_of(results: Path, study: Study, run: Run) -> Record:
    """The record of a run that is done; UserError where it is missing or stale, with the command that makes it."""
    state, record = status(results, study, run, read_data(results, study).checksum)
    if state != "done" or record is None:
        raise UserError(f"{run_folder(results, study, run)}: the run is {state}; make it with: {run.command}")
    return record


def needs_training(results: Path, study: Study, run: Run, data_checksum: str) -> str | None:
    """Why the run has to be trained; None where its record is complete and fresh, and nobody lacks its weights.

    Weights are not in git: a parent that is done, but whose weights are not here, is trained once more as long as one
    of the study's runs is still to start from them.
    """
    state, record = status(results, study, run, data_checksum)
    if state != "done" or record is None:
        return f"its record is {state}"
    children = [one for one in study.runs() if study.parent(one) == run]
    if all(status(results, study, child, data_checksum)[0] == "done" for child in children):
        return None
    weights = run_folder(results, study, run) / WEIGHTS
    here = weights.exists() and sha256(weights) == record.weights_sha256
    return None if here else "its record is complete, but runs to come start from its weights, which are not here"


def untrained(results: Path, study: Study) -> dict[Run, str]:
    """Every run of the study that needs training, and why.

    Where data.json is gone, a record is believed what data it was trained on: `prepare` makes data.json anew.
    """
    known = read_data(results, study).checksum if data_path(results, study).exists() else None
    found = {}
    for run in study.runs():
        try:
            record = None if known else read_record(run_folder(results, study, run))
            why = needs_training(results, study, run, known or (record.data_checksum if record else ""))
        except UserError as error:
            why = str(error)
        if why:
            found[run] = why
    return found


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
        print(f"{run}: its parent was trained anew since, to other weights; to start from these: {run.command} --again")
    for name in ("record.json", "history.csv"):
        refresh(run_folder(results, study, run) / name)
    return record


def outlived(results: Path, study: Study, run: Run) -> bool:
    """Whether the run is done, but its parent was trained anew since, to other weights."""
    parent = study.parent(run)
    record, of_parent = (read_record(run_folder(results, study, one)) if one else None for one in (run, parent))
    return bool(record and record.parent and of_parent and record.parent.weights_sha256 != of_parent.weights_sha256)

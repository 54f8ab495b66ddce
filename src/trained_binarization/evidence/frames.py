"""Records and histories of a study as data frames."""

from math import nan
from pathlib import Path

import pandas as pd

from trained_binarization import records
from trained_binarization.errors import UserError
from trained_binarization.study import ImageFolder, Run, Study

RUN_COLUMNS = (
    "network",
    "variant",
    "seed",
    "status",  # done, missing, diverged or stale; what follows is None unless done
    "accuracy",  # last epoch, percent
    "top5",  # last epoch, percent; where it is customary
    "best",  # best epoch, percent; shown, never used
    "best_epoch",
    "loss",  # last epoch, nats
    "epochs",
    "scored",  # test or validation
    "images_scored",
    "fingerprint",
    "weights_sha256",
    "reason",  # why it is not done
    "command",  # what makes it
)


def no_images(study: Study) -> str:
    """Why a study has no data.json."""
    names = {"imagenet": "ImageNet", "imagenette": "Imagenette"}
    if isinstance(study.dataset, ImageFolder):  # not asked of the disk: a report follows from the records
        return f"no {names[study.dataset.name]} at {study.dataset.root}, or not prepared yet"
    return "the data set is not prepared"


def done_records(study: Study, results: Path) -> list[tuple[Run, str, records.Record | None, str]]:
    """(run, status, its record if done, the reason if not) for every run of the study, in the study's order.

    UserError where a record is not sound: a study with such a record is not aggregated.
    """
    if not records.data_path(results, study).exists():
        return [(run, "missing", None, no_images(study)) for run in study.runs()]
    checksum = records.read_data(results, study).checksum
    rows: list[tuple[Run, str, records.Record | None, str]] = []
    for run in study.runs():
        found = records.status(results, study, run, checksum)
        if found.state == "unsound":
            raise UserError(
                f"{found.reason}; restore the file (git checkout, a backup), or train the run again: "
                f"{study.command(run)}"
            )
        rows.append((run, found.state, found.record, found.reason))
    return rows


def runs_frame(study: Study, results: Path) -> pd.DataFrame:
    """One row a run that the study means, done or not. Accuracies in percent; columns are RUN_COLUMNS."""
    rows = []
    for run, status, record, reason in done_records(study, results):
        row = {"network": run.network, "variant": run.variant, "seed": run.seed, "status": status}
        row |= {"reason": reason, "command": study.command(run)}
        if record is not None:
            row |= {
                "accuracy": record.last.accuracy,
                "top5": nan if record.last.top5 is None else record.last.top5,
                "best": record.best.accuracy,
                "best_epoch": record.best.epoch,
                "loss": record.last.loss,
                "epochs": record.epochs,
                "scored": record.scored,
                "images_scored": record.images_scored,
                "fingerprint": record.fingerprint,
                "weights_sha256": record.weights_sha256,
            }
        rows.append(row)
    return pd.DataFrame(rows, columns=list(RUN_COLUMNS))


def history_frame(study: Study, results: Path) -> pd.DataFrame:
    """Every epoch of every finished run: network, variant, seed, then history.csv's columns. Empty without runs."""
    frames = []
    for run, status, _, _ in done_records(study, results):
        if status == "done":
            frame = pd.read_csv(records.run_folder(results, study, run) / "history.csv")
            frame.insert(0, "seed", run.seed)
            frame.insert(0, "variant", run.variant)
            frame.insert(0, "network", run.network)
            frames.append(frame)
    columns = ["network", "variant", "seed", *records.HISTORY]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)

"""What has not been run, and what it would take at the pace of the records that are there."""

from pathlib import Path
from statistics import median

from trained_binarization.evidence.frames import done_records
from trained_binarization.evidence.tables import DASH, Cell, Table, number
from trained_binarization.records import Record
from trained_binarization.study import FULL_PRECISION, METHOD, Finetuning, Study, Training

FORWARD = 1 / 3
"""A forward pass's share of a training step: backward computes two products for each of forward's (our reckoning)."""

CAPTION = (
    "Seconds (s) an epoch: median of the records of the same network, width and data, evaluation counted in, on the "
    "device that they name; distillation adds a forward pass of the full-precision network, a third of its training. "
    "Parents whose weights are not at hand are trained once more; that is not counted. ImageNet's time is estimated in "
    "docs/imagenet.md."
)


def left_to_run(studies: list[Study], results: Path) -> Table | None:
    """Runs that are not done, by study and training, with their time where a record tells it; None where all are."""
    found = [(study, done_records(study, results)) for study in studies]
    records = [(study, record) for study, rows in found for _, _, record, _ in rows if record]
    rows, cells = [], []
    for study, runs in found:
        for network in study.networks:
            for kind in (FULL_PRECISION, METHOD, "ablations"):
                of_kind = [run for run, _, record, _ in runs if run.network == network and not record]
                missing = [run for run in of_kind if _kind(run.variant) == kind]
                if not missing:
                    continue
                training = study.training(missing[0])
                pace, device = _pace(study, network, kind, records)
                minutes = pace and pace * training.epochs * len(missing) / 60
                rows.append(
                    {
                        "study": study.study,
                        "network": network,
                        "training": kind,
                        "runs": len(missing),
                        "epochs": training.epochs,
                        "seconds_an_epoch": pace,
                        "minutes": minutes,
                        "device": device,
                    }
                )
                cells.append(
                    [
                        Cell(study.study),
                        Cell(network, style="code"),
                        Cell(kind.replace("_", " ")),
                        Cell(str(len(missing)), style="number"),
                        Cell(str(training.epochs), style="number"),
                        number(pace),
                        number(minutes, digits=0),
                        Cell(device or DASH),
                    ]
                )
    headings = ["Study", "Network", "Training", "Runs left", "Epochs", "s an epoch", "Minutes", "On"]
    return Table("left", CAPTION, headings, rows, cells) if rows else None


def _kind(variant: str) -> str:
    return variant if variant in (FULL_PRECISION, METHOD) else "ablations"


def _pace(
    study: Study, network: str, kind: str, records: list[tuple[Study, Record]]
) -> tuple[float | None, str | None]:
    """(seconds an epoch, the device) of such a training by the records; ablations go at the method's pace.

    A distilled training that no record tells is a plain one's and a forward pass.
    """
    variant = FULL_PRECISION if kind == FULL_PRECISION else METHOD
    training = study.pretrain if kind == FULL_PRECISION else study.finetune
    architecture = study.architecture[network].model_dump(exclude_defaults=True)  # type: ignore[index]
    alike = [
        record
        for other, record in records
        if (record.network, record.variant) == (network, variant)
        and other.dataset.name == study.dataset.name
        and record.settings["architecture"] == architecture
        and record.settings["training"]["batch_size"] == training.batch_size
        and ("distillation" in record.settings["training"]) == _distilled(training)
    ]
    devices = {record.device for record in alike}
    if len(devices) == 1:  # several would go at different paces
        return median(record.wall_seconds / record.epochs for record in alike), devices.pop()
    if not alike and _distilled(training):
        plain = study.model_copy(update={"finetune": study.finetune.model_copy(update={"distillation": None})})
        (pace, device), (of_teacher, of) = (_pace(plain, network, one, records) for one in (kind, FULL_PRECISION))
        if pace and of_teacher and device == of:
            return pace + FORWARD * of_teacher, device
    return None, None


def _distilled(training: Training) -> bool:
    return isinstance(training, Finetuning) and training.distillation is not None

"""One run of a study, from its settings to its record: nothing is trained twice, nothing is lost."""

import time
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from trained_binarization.binarization.layers import binary_layers
from trained_binarization.datasets import open_dataset
from trained_binarization.datasets.augment import Augmentation
from trained_binarization.datasets.images import Images
from trained_binarization.errors import UserError
from trained_binarization.networks import build
from trained_binarization.networks.summary import layer_costs
from trained_binarization.records import (
    METHOD_VERSION,
    Evaluation,
    Parent,
    Record,
    fingerprint,
    provenance,
    read_data,
    read_record,
    run_folder,
    settings_of,
    sha256,
    status,
    write_json,
    write_text,
    written_whole,
)
from trained_binarization.study import FULL_PRECISION, Method, Run, Study
from trained_binarization.training import checkpoint
from trained_binarization.training.device import describe, set_up
from trained_binarization.training.loop import Interrupted, State, Trainer, stop_requests
from trained_binarization.training.progress import Progress

WEIGHTS = "weights.safetensors"


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a run's weights; scaling factors that the file does not have keep their start. UserError if they misfit."""
    try:
        missing, unexpected = network.load_state_dict(load_file(path), strict=False)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(f"{path}: found weights that do not fit ({reason}); allowed: this network's") from None
    wrong = [name for name in missing if not name.endswith("alpha")] + list(unexpected)
    if wrong:
        raise UserError(f"{path}: found weights of another network ({wrong[0]}); allowed: this network's")


def network_of(study: Study, run: Run, images: Images) -> nn.Module:
    """The run's network with random weights by its seed."""
    torch.manual_seed(run.seed)
    architecture = study.architecture[run.network]
    return build(run.network, architecture, study.variant(run.variant), images.size, len(images.classes))


def _start_from(parent: Run, network: nn.Module, study: Study, results: Path, data_checksum: str) -> Parent:
    """Load the parent's finished weights, each layer's factors and latent weights set from them."""
    state, record = status(results, study, parent, data_checksum)
    path = run_folder(results, study, parent) / WEIGHTS
    if state != "done" or record is None:
        raise UserError(f"{path.parent}: the parent run is {state}; make it with: {parent.command}")
    if not path.exists():
        raise UserError(f"{path}: no such file (weights are not in git); make it with: {parent.command} --again")
    found = sha256(path)
    if found != record.weights_sha256:
        raise UserError(
            f"{path}: SHA-256: found {found[:12]}; allowed: {record.weights_sha256[:12]}, its record's; "
            f"make both with: {parent.command} --again"
        )
    load_weights(network, path)
    for _, layer in binary_layers(network):
        layer.initialize_from_weight()
    return Parent(run=str(parent), fingerprint=record.fingerprint, weights_sha256=found)


def train_run(
    study: Study, run: Run, results: Path, *, again: bool = False, deadline: float | None = None
) -> tuple[Record, bool]:
    """(the run's record, whether it was trained now). A run whose record is complete and fresh returns at once.

    Raises Interrupted, with everything saved, at a signal or at `deadline` (on time.monotonic()'s clock).
    """
    data_checksum = read_data(results, study).checksum
    folder = run_folder(results, study, run)
    state, record = status(results, study, run, data_checksum)
    if state == "done" and record is not None and not again:
        for name in ("record.json", "history.csv"):
            (folder / name).touch()  # for engines that go by time; the content is left alone
        return record, False

    device = set_up(study.compute)
    images = open_dataset(study.dataset)
    if images.checksum != data_checksum:
        raise UserError(
            f"{study.dataset.root}: checksum: found {images.checksum[:12]}; allowed: {data_checksum[:12]}, "
            "that of data.json; run prepare again"
        )
    network = network_of(study, run, images)
    parent_run = study.parent(run)
    parent = _start_from(parent_run, network, study, results, data_checksum) if parent_run else None
    trainer, scored_images = _trainer(study, run, network, images, device)

    print_ = fingerprint(study, run, data_checksum)
    saved = checkpoint.load_checkpoint(folder)
    if saved and saved[1]["fingerprint"] == print_:
        trainer.restore(saved[0], State(**saved[1]["state"]))
        trainer.state.interruptions += 1
        print(f"{run}: goes on after epoch {trainer.state.epoch}, batch {trainer.state.batch}", flush=True)
    else:
        checkpoint.remove_checkpoints(folder)

    def save_checkpoint() -> None:
        step = trainer.state.epoch * trainer.batches + trainer.state.batch
        progress = {"fingerprint": print_, "state": asdict(trainer.state)}
        checkpoint.save_checkpoint(folder, step, trainer.tensors(), progress)

    with stop_requests() as received:
        trainer.run(save_checkpoint, received, deadline)

    made = _finish(study, run, folder, trainer, device, data_checksum, print_, parent, scored_images, images.size)
    checkpoint.remove_checkpoints(folder)
    return made, True


def _trainer(
    study: Study, run: Run, network: nn.Module, images: Images, device: torch.device
) -> tuple[Trainer, int]:
    train, scored = images.split(study.dataset.validation)
    train = (train[0].to(device), train[1].to(device))
    scored = (scored[0].to(device), scored[1].to(device))
    if study.training(run).batch_size > len(train[1]):
        raise UserError(
            f"study {study.study}: batch_size: found {study.training(run).batch_size}; "
            f"allowed: at most {len(train[1])}, the training images"
        )
    memory = torch.channels_last if study.compute.channels_last else torch.contiguous_format
    network.to(device=device, memory_format=memory)  # type: ignore[call-overload]
    training = study.training(run)
    trainer = Trainer(
        network=network,
        training=training,
        compute=study.compute,
        seed=run.seed,
        train=train,
        scored=scored,
        augmentation=Augmentation(train[0], study.dataset.padding, study.dataset.flip),
        progress=Progress(f"{study.study}: {run}", training.epochs, training.batch_size),
    )
    return trainer, len(scored[1])


def _finish(
    study: Study,
    run: Run,
    folder: Path,
    trainer: Trainer,
    device: torch.device,
    data_checksum: str,
    print_: str,
    parent: Parent | None,
    images_scored: int,
    image_size: int,
) -> Record:
    """Write weights, history and, last, the record: where the record is, the rest is."""
    with written_whole(folder / WEIGHTS) as partial:
        partial.write_bytes(save({k: v.cpu().contiguous() for k, v in trainer.network.state_dict().items()}))
    state = trainer.state
    columns = list(state.history[-1])
    lines = [",".join(columns)]
    lines += [",".join("" if row[c] is None else f"{row[c]:.8g}" for c in columns) for row in state.history]
    write_text(folder / "history.csv", "\n".join(lines) + "\n")
    evaluations = [
        Evaluation(epoch=row["epoch"], loss=row["evaluation_loss"], accuracy=row["evaluation_accuracy"])
        for row in state.history
        if row["evaluation_accuracy"] is not None
    ]
    name, driver = describe(device)
    # The binary network is what is counted, for the full-precision run too: one bit is what it could be.
    method = study.variant(run.variant) if run.variant != FULL_PRECISION else Method()
    classes = trainer.network.get_submodule("classifier").weight.shape[0]
    counted = build(run.network, study.architecture[run.network], method, image_size, int(classes))
    record = Record(
        study=study.study,
        network=run.network,
        variant=run.variant,
        seed=run.seed,
        stand_in=study.stand_in,
        fingerprint=print_,
        method_version=METHOD_VERSION,
        settings=settings_of(study, run),
        compute=study.compute.model_dump(),
        data_checksum=data_checksum,
        parent=parent,
        scored="validation" if study.dataset.validation else "test",
        images_scored=images_scored,
        images_trained_on=len(trainer.labels),
        epochs=state.epoch,
        last=evaluations[-1],
        best=max(evaluations, key=lambda evaluation: evaluation.accuracy),
        alphas_at_floor=trainer.alphas_at_floor(),
        weights_sha256=sha256(folder / WEIGHTS),
        layers=layer_costs(counted, image_size),
        wall_seconds=round(state.seconds, 3),
        images_per_second=round(state.images / state.seconds, 1),
        interruptions=state.interruptions,
        device=name,
        driver=driver,
        threads=torch.get_num_threads(),
        **provenance(),
    )
    write_json(folder / "record.json", record.model_dump())
    return record

"""One run of a study, from its settings to its record: nothing is trained twice, nothing is lost."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trained_binarization.binarization.layers import binary_layers
from trained_binarization.binarization.method import Method
from trained_binarization.datasets import open_dataset
from trained_binarization.errors import Diverged, UserError
from trained_binarization.files import held, sha256, write_json, write_text
from trained_binarization.networks import build
from trained_binarization.networks.summary import layer_costs
from trained_binarization.provenance import provenance
from trained_binarization.records import (
    DIVERGED,
    METHOD_VERSION,
    WEIGHTS,
    Divergence,
    Evaluation,
    Parent,
    Record,
    fingerprint,
    finished,
    needs_training,
    read_data,
    run_folder,
    settings_of,
    status,
)
from trained_binarization.study import FULL_PRECISION, Run, Study
from trained_binarization.training import checkpoint, torchvision_weights
from trained_binarization.training.device import describe, set_up
from trained_binarization.training.distributed import ALONE, World
from trained_binarization.training.loop import Interrupted, State, StopRequests, Trainer, evaluate
from trained_binarization.training.progress import Progress
from trained_binarization.training.weights import SIGNS, load_state, load_weights, save_weights, signs_of, state_sha256

if TYPE_CHECKING:
    from trained_binarization.datasets import ImageSet


def network_of(study: Study, run: Run, images: ImageSet) -> nn.Module:
    """The run's network with random weights by its seed."""
    torch.manual_seed(run.seed)
    return built(study, run.network, study.variant(run.variant), images.size, len(images.classes))


def built(study: Study, network: str, method: Method | None, image_size: int, classes: int) -> nn.Module:
    """One of the study's networks: binary by the method, or in full precision where that is None.

    UserError where the network cannot be built for such images.
    """
    switches = study.architecture[network].model_dump()  # type: ignore[index]
    try:
        return build(network, method, image_size, classes, **switches)
    except ValueError as error:
        raise UserError(f"architecture.{network}: {error}") from None


def _start_from(parent: Run, network: nn.Module, study: Study, results: Path, data_checksum: str) -> Parent:
    """Load the parent's finished weights, each layer's factors and latent weights set from them."""
    state, record, _ = status(results, study, parent, data_checksum)
    path = run_folder(results, study, parent) / WEIGHTS
    if record is None:
        raise UserError(f"{path.parent}: the parent run is {state}; make it with: {study.command(parent)}")
    if not path.exists():
        raise UserError(f"{path}: no such file (weights are not in git); make it with: {study.command(parent)} --again")
    found = sha256(path)
    if found != record.weights_sha256:
        raise UserError(
            f"{path}: SHA-256: found {found[:12]}; allowed: {record.weights_sha256[:12]}, its record's; "
            f"make both with: {study.command(parent)} --again"
        )
    load_weights(network, path)
    for _, layer in binary_layers(network):
        layer.initialize_from_weight()
    return Parent(run=str(parent), fingerprint=record.fingerprint, weights_sha256=found)


def train_run(
    study: Study,
    run: Run,
    results: Path,
    *,
    again: bool = False,
    deadline: float | None = None,
    world: World = ALONE,
) -> tuple[Record, bool]:
    """(the run's record, whether it was trained now). A run that does not need it (records.py) returns at once.

    Several processes read one file system; the first decides and writes. Raises Interrupted, with everything saved, at
    a signal or at `deadline` (on time.monotonic()'s clock).
    """
    record: Record | None = world.from_first(None if again or world.rank else finished(results, study, run))
    if record:
        return record, False
    if not again and not world.rank and (run_folder(results, study, run) / "record.json").exists():
        why = needs_training(results, study, run, read_data(results, study).checksum)
        print(f"{run}: trained once more, since {why}", flush=True)
    job = _Job(study, run, results, world)
    with nullcontext() if world.rank else held(job.folder, str(run)):
        job.resume()
        requests = StopRequests(deadline)
        with requests.collected():
            try:
                job.trainer.run(job.save_checkpoint, requests)
            except Diverged as error:
                raise job.diverged(error) from None
            record = world.from_first(None if world.rank else job.finish())
    if number := world.agree(requests.signal_number or 0):  # it came at the very end: this run is done, no other begins
        raise Interrupted(number)
    return record, True


def kept_network(study: Study, run: Run, results: Path, images: ImageSet) -> nn.Module:
    """A finished run's network with its kept weights (or signs); UserError where there are none."""
    path, _ = _kept(study, run, results, (WEIGHTS, SIGNS))
    return _with_weights(study, run, images, path)


def _with_weights(study: Study, run: Run, images: ImageSet, path: Path) -> nn.Module:
    network = network_of(study, run, images)
    load_weights(network, path)
    return network


def _kept(study: Study, run: Run, results: Path, names: tuple[str, ...]) -> tuple[Path, Record]:
    """(the first of a finished run's files that is there, its record); UserError where they do not belong together."""
    folder = run_folder(results, study, run)
    state, record, _ = status(results, study, run, read_data(results, study).checksum)
    path = next((folder / name for name in names if (folder / name).exists()), None)
    if record is None or path is None:
        found = f"a run that is {state}" if state != "done" else f"none of {', '.join(names)}"
        raise UserError(f"{folder}: found {found}; make it with: {study.command(run)} --again")
    whole = path.name == WEIGHTS
    found, own = (sha256(path), record.weights_sha256) if whole else (_signs_sha256(path), record.signs_sha256)
    if found != own:
        raise UserError(
            f"{path}: SHA-256: found {found[:12]}; allowed: {own[:12] if own else 'none'}, its record's; "
            f"restore the file, or make it with: {study.command(run)} --again"
        )
    return path, record


def _signs_sha256(path: Path) -> str:
    """Over the tensors, not the file: how a file packs them is no part of what was trained."""
    return state_sha256(load_state(path))


def keep_signs(study: Study, run: Run, results: Path) -> Path:
    """Write a binary run's signs.safetensors beside its weights; returns its path."""
    path, _ = _kept(study, run, results, (WEIGHTS,))
    network = _with_weights(study, run, open_dataset(study.dataset, run.network), path)
    save_weights(network, path.with_name(SIGNS), signs=True)
    return path.with_name(SIGNS)


def evaluate_run(study: Study, run: Run, results: Path) -> tuple[float, Record]:
    """(accuracy in percent of the run's kept weights on the images that were scored, the run's record)."""
    path, record = _kept(study, run, results, (WEIGHTS, SIGNS))
    device = set_up(study.compute)
    images = open_dataset(study.dataset, run.network)
    network = _with_weights(study, run, images, path).to(device)
    mean, std = (values.to(device) for values in images.statistics(study.dataset.validation))
    return evaluate(network, images.scored(study.dataset.validation, device), mean, std).accuracy, record


class _Job:
    """One run being trained: what `train_run` opens, resumes, saves and finishes."""

    def __init__(self, study: Study, run: Run, results: Path, world: World) -> None:
        self.study, self.run, self.folder, self.world = study, run, run_folder(results, study, run), world
        self.provenance = provenance()  # now, of the code that is loaded, not of what lies there at the end
        self.data_checksum = read_data(results, study).checksum
        self.fingerprint = fingerprint(study, run, self.data_checksum)
        self.device = set_up(study.compute)
        self.images = open_dataset(study.dataset, run.network)
        if self.images.checksum != self.data_checksum:
            raise UserError(
                f"{study.dataset.root}: checksum: found {self.images.checksum[:12]}; "
                f"allowed: {self.data_checksum[:12]}, that of data.json; run prepare again"
            )
        network = network_of(study, run, self.images)
        if study.start(run):
            network.load_state_dict(torchvision_weights.mapped(torchvision_weights.fetch()))
        parent = study.parent(run)
        self.parent = _start_from(parent, network, study, results, self.data_checksum) if parent else None
        teacher = None
        if parent and study.finetune.distillation:
            teacher = _with_weights(study, parent, self.images, run_folder(results, study, parent) / WEIGHTS)
        self.trainer = self._trainer(network, teacher)

    def _trainer(self, network: nn.Module, teacher: nn.Module | None) -> Trainer:
        study, training = self.study, self.study.training(self.run)
        images = self.images.trained_on(study.dataset, self.device)
        if training.batch_size > len(images):
            raise UserError(
                f"study {study.study}: batch_size: found {training.batch_size}; "
                f"allowed: at most {len(images)}, the training images"
            )
        memory = torch.channels_last if study.compute.channels_last else torch.contiguous_format
        network.to(device=self.device, memory_format=memory)  # type: ignore[call-overload]
        if teacher:
            teacher.to(device=self.device, memory_format=memory).eval()  # type: ignore[call-overload]
        if study.start(self.run):
            torchvision_weights.estimate_statistics(network, images, training.batch_size)
        return Trainer(
            network=network,
            training=training,
            compute=study.compute,
            seed=self.run.seed,
            images=images,
            scored=self.images.scored(study.dataset.validation, self.device),
            progress=Progress(f"{study.study}: {self.run}", training.epochs, training.batch_size, self.world.rank == 0),
            world=self.world,
            teacher=teacher,
            views=lambda: self.images.views(study.dataset, self.device),
        )

    def resume(self) -> None:
        """Go on from the last checkpoint of the same fingerprint and starting weights; others are removed."""
        saved = checkpoint.load_checkpoint(self.folder)
        place = saved and saved[1]["state"]
        if self.world.agree(self.world.from_first(place) != place):
            raise UserError(
                f"{self.folder}: found another checkpoint than the first process; allowed: one file system for all"
            )
        start = self.parent and self.parent.weights_sha256
        if saved is None or (saved[1]["fingerprint"], saved[1].get("start")) != (self.fingerprint, start):
            checkpoint.remove_checkpoints(self.folder)
            return
        tensors, progress = saved
        state = State(**progress["state"])
        state.interruptions += 1
        if progress["commit"] != self.provenance["commit"]:
            self.provenance["clean"] = False  # begun by the code of another commit
        self.trainer.restore(tensors, state)
        print(f"{self.run}: goes on after epoch {state.epoch}, batch {state.batch}", flush=True)

    def save_checkpoint(self) -> None:
        """Save all that the rest of the training depends on."""
        trainer = self.trainer
        if self.world.rank:
            return
        step = trainer.state.epoch * trainer.batches + trainer.state.batch
        commit = self.provenance["commit"]
        progress = {
            "fingerprint": self.fingerprint,
            "start": self.parent and self.parent.weights_sha256,
            "commit": commit,
            "state": asdict(trainer.state),
        }
        checkpoint.save_checkpoint(self.folder, step, trainer.tensors(), progress)

    def diverged(self, error: Diverged) -> Diverged:
        """Write diverged.json; returns the error as the line that a user reads. The last checkpoint stays."""
        stage = "pretrain" if self.run.variant == FULL_PRECISION else "finetune"
        epoch = min(self.trainer.state.epoch + 1, self.trainer.training.epochs)
        if not self.world.rank:
            said = Divergence(fingerprint=self.fingerprint, epoch=epoch, found=str(error))
            write_json(self.folder / DIVERGED, said.model_dump())
        return Diverged(
            f"{self.run}: diverged in epoch {epoch}: {error}; no record was written; "
            f"try a smaller {stage}.learning_rate"
        )

    def finish(self) -> Record:
        """Write weights, history and, last, the record: where the record is, the rest is.

        A record from before goes first: it must never stand beside a history or weights that are not its own.
        """
        study, run, trainer, state = self.study, self.run, self.trainer, self.trainer.state
        (self.folder / "record.json").unlink(missing_ok=True)
        save_weights(trainer.network, self.folder / WEIGHTS)
        binary = study.variant(run.variant) is not None
        columns = list(state.history[-1])
        lines = [",".join(columns)]
        lines += [",".join("" if row[c] is None else f"{row[c]:.8g}" for c in columns) for row in state.history]
        write_text(self.folder / "history.csv", "\n".join(lines) + "\n")
        evaluations = [
            Evaluation(
                epoch=row["epoch"],
                loss=row["evaluation_loss"],
                accuracy=row["evaluation_accuracy"],
                top5=row.get("evaluation_top5"),
            )
            for row in state.history
            if row["evaluation_accuracy"] is not None
        ]
        name, driver = describe(self.device)
        record = Record(
            study=study.study,
            network=run.network,
            variant=run.variant,
            seed=run.seed,
            stand_in=study.stand_in,
            fingerprint=self.fingerprint,
            method_version=METHOD_VERSION,
            settings=settings_of(study, run),
            compute=study.compute.model_dump(),
            data_checksum=self.data_checksum,
            parent=self.parent,
            scored="validation" if study.dataset.validation else "test",
            images_scored=len(trainer.scored),
            images_trained_on=len(trainer.images),
            epochs=state.epoch,
            last=evaluations[-1],
            best=max(evaluations, key=lambda evaluation: evaluation.accuracy),
            accuracy_views=trainer.accuracy_views,
            alphas_at_floor=trainer.alphas_at_floor(),
            weights_sha256=sha256(self.folder / WEIGHTS),
            signs_sha256=state_sha256(signs_of(trainer.network)) if binary else None,
            history_sha256=sha256(self.folder / "history.csv"),
            layers=self._layers(),
            wall_seconds=round(state.seconds, 3),
            images_per_second=round(state.images / state.seconds, 1),
            interruptions=state.interruptions,
            device=name,
            driver=driver,
            threads=torch.get_num_threads(),
            processes=self.world.size,
            **self.provenance,
        )
        write_json(self.folder / "record.json", record.model_dump())
        (self.folder / DIVERGED).unlink(missing_ok=True)
        checkpoint.remove_checkpoints(self.folder)
        return record

    def _layers(self) -> list[dict[str, Any]]:
        # Counted as a binary network, the full-precision one too: one bit is what it could be.
        method = self.study.variant(self.run.variant) or Method()
        size, classes = self.images.size, len(self.images.classes)
        return layer_costs(built(self.study, self.run.network, method, size, classes), size)

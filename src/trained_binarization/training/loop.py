"""The training loop: one network, one schedule, resumable after any step."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from math import isfinite
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trained_binarization.binarization.layers import ALPHA_FLOOR, alphas, binary_layers, keep_positive, scaling_penalty
from trained_binarization.datasets.augment import normalise
from trained_binarization.datasets.images import EVALUATION_BATCH
from trained_binarization.errors import Diverged
from trained_binarization.study import Compute, Finetuning, Training
from trained_binarization.training.device import compiled
from trained_binarization.training.distributed import ALONE, World, data_parallel
from trained_binarization.training.graph import GraphedUpdate
from trained_binarization.training.optimizers import build_optimizers, restore_state, set_rate, state_tensors
from trained_binarization.training.progress import Progress
from trained_binarization.training.schedules import factor

if TYPE_CHECKING:
    from trained_binarization.datasets import Scored, TrainedOn


class Interrupted(BaseException):
    """The training stopped before its end, nothing lost; `signal_number` is None where a time limit was met.

    Like KeyboardInterrupt no Exception: whatever is being done, a compilation among it, is not to catch it.
    """

    def __init__(self, signal_number: int | None) -> None:
        super().__init__("interrupted")
        self.signal_number = signal_number


@dataclass
class StopRequests:
    """Why to stop: a signal, or a deadline on time.monotonic()'s clock."""

    deadline: float | None = None
    signal_number: int | None = None
    at_once: bool = True  # until there is something to save; compiling the first step can take a minute

    @contextmanager
    def collected(self) -> Iterator[None]:
        """SIGTERM and SIGINT, noted instead of obeyed at once, so that the training can save first."""
        before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.signal_number = number
        if self.at_once:
            raise Interrupted(number)

    # A deadline, too, waits until there is something to save: each call does at least one step, or one evaluation.
    def __bool__(self) -> bool:
        late = self.deadline is not None and time.monotonic() > self.deadline
        return not self.at_once and (late or self.signal_number is not None)


GO, SAVE, STOP = 0, 1, 2
"""What a process can wish for after a batch; the greatest wish of all is done."""


@dataclass
class State:
    """Where a training stands. Sums run over the current epoch."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the current epoch
    loss_sum: float = 0.0
    correct: float = 0.0
    seconds: float = 0.0
    images: int = 0
    interruptions: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


SAVING = 0.1
"""The share of the time that checkpoints at the epochs' ends may take: on a GPU an epoch is soon done."""


class Scores(NamedTuple):
    """Cross-entropy in nats, top-1 and top-5 accuracy in percent; the last where it is customary."""

    loss: float
    accuracy: float
    top5: float | None


def distillation_loss(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """KL(teacher || network) at a temperature T, in nats, times T^2, from logits (B, classes) of both.

    T^2 keeps the gradients' size as T grows (Hinton, Vinyals, Dean 2015, section 2.1).
    """
    log_p, log_q = (F.log_softmax(values / temperature, dim=1) for values in (taught, logits))
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * temperature**2


@torch.no_grad()
def evaluate(
    network: nn.Module,
    scored: Scored,
    mean: Tensor,
    std: Tensor,
    world: World = ALONE,
    requests: StopRequests | None = None,
) -> Scores:
    """Score all images, in float32; they are normalised by `mean` and `std`, each (3,), where the network is.

    The processes share the batches. Raises Interrupted where one of them is asked to stop.
    """
    network.eval()
    totals = torch.zeros(3, dtype=torch.float64, device=mean.device)
    batches = scored.batches(EVALUATION_BATCH, world.rank, world.size)
    for _ in range(0, len(scored), EVALUATION_BATCH * world.size):
        if world.agree(STOP if requests else GO) == STOP:
            raise Interrupted(requests.signal_number if requests else None)
        for images, labels in islice(batches, 1):  # the last round has none for some
            logits = network(normalise(images, mean, std))
            loss = F.cross_entropy(logits, labels, reduction="sum")
            first = (logits.argmax(1) == labels).sum()
            five = (logits.topk(min(5, logits.shape[1])).indices == labels[:, None]).sum()
            totals += torch.stack([loss.double(), first.double(), five.double()])
    network.train()
    loss_sum, correct, among_five = world.total(totals).tolist()
    count = len(scored)
    return Scores(loss_sum / count, 100 * correct / count, 100 * among_five / count if scored.top5 else None)


def layer_statistics(network: nn.Module, signs: dict[str, Tensor]) -> dict[str, float]:
    """Per binary layer: alphas, shares of latent weights beyond 0.4 and 1, share of signs flipped since `signs`.

    `signs` is brought up to date. Scaling factors per channel are given by their mean.
    """
    values: dict[str, Tensor] = {}
    for name, layer in binary_layers(network):
        weight = layer.weight.detach()
        if layer.alpha is not None:
            values[f"alpha_weight.{name}"] = layer.alpha.detach().mean()
        if layer.activation.alpha is not None:
            values[f"alpha_activation.{name}"] = layer.activation.alpha.detach()
        values[f"latent_beyond_0.4.{name}"] = (weight.abs() > 0.4).float().mean()
        values[f"latent_beyond_1.{name}"] = (weight.abs() > 1).float().mean()
        sign = weight >= 0
        values[f"flipped.{name}"] = (sign != signs.get(name, sign)).float().mean()
        signs[name] = sign
    if not values:
        return {}
    return dict(zip(values, torch.stack(list(values.values())).double().tolist(), strict=True))


class Trainer:
    """Trains a network by a schedule; `run` returns at the end, or raises Interrupted after saving.

    It raises Diverged at the first loss, factor, weight or accuracy that is not finite. On a CPU it checks every batch.
    On a GPU, and with several processes, it checks the sums where they are read anyway: at an epoch's end and before a
    checkpoint. So no step waits for the host. Before a checkpoint it checks all tensors too.
    """

    def __init__(
        self,
        network: nn.Module,
        training: Training,
        compute: Compute,
        seed: int,
        images: TrainedOn,
        scored: Scored,
        progress: Progress,
        world: World = ALONE,
        teacher: nn.Module | None = None,
        views: Callable[[], Scored] | None = None,
    ) -> None:
        """`teacher`: whose predictions are distilled, in evaluation; None where the training asks for none.

        `views` makes the views of the scored images; after the last epoch `accuracy_views` is the accuracy on them.
        """
        self.world, self.teacher, self.views = world, teacher, views
        self.accuracy_views: float | None = None
        self.network, self.training, self.compute, self.seed = network, training, compute, seed
        self.images, self.scored, self.progress = images, scored, progress
        self.device = images.device
        self.each_batch = self.device.type == "cpu" and world.size == 1  # whether every batch is checked
        self.finite_until = 0  # batches of this epoch whose sums were checked
        self.factors = alphas(network)
        self.model = network if world.size == 1 else data_parallel(network)
        self.optimizers = build_optimizers(network, training)
        self.batches = len(images) // training.batch_size
        self.state = State()
        self.signs: dict[str, Tensor] = {}
        layer_statistics(network, self.signs)
        self.objective: Callable[..., tuple[Tensor, Tensor, Tensor]] = self._objective
        if compute.compile:
            # Forget the networks before this one, or the ninth of a process would silently run eagerly.
            torch.compiler.reset()
            self.objective = compiled(self._objective)  # evaluation stays eager, in float32
        self.update: Callable[..., Tensor] = self._update
        if self.device.type == "cuda" and world.size == 1:
            self.update = GraphedUpdate(self._update)

    def _objective(self, *batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(loss to minimise, cross-entropy, number correct) of a batch."""
        images, target = self.images.load(*batch)
        if not self.compute.channels_last:
            images = images.contiguous()
        enabled = self.compute.autocast == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
            logits = self.model(images)
        cross_entropy = F.cross_entropy(logits.float(), target, label_smoothing=self.training.label_smoothing)
        loss = cross_entropy + scaling_penalty(self.network)
        if isinstance(self.training, Finetuning) and (distillation := self.training.distillation):
            assert self.teacher is not None
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
                taught = self.teacher(images)
            distance = distillation_loss(logits.float(), taught.float(), distillation.temperature)
            loss = loss + distillation.share * (distance - cross_entropy)
        correct = (logits.argmax(1) == target).sum()
        return loss, cross_entropy, correct

    def run(self, save: Callable[[], None], requests: StopRequests) -> None:
        """Train to the end, or to a request to stop. `save` writes a checkpoint of `tensors` and `state`."""
        self.network.train()
        self.saved, self.saving = time.monotonic(), 0.0
        before = self.state.seconds - time.monotonic()
        while self.state.epoch < self.training.epochs:
            sums = torch.tensor([self.state.loss_sum, self.state.correct], dtype=torch.float64, device=self.device)
            sums /= self.world.size  # each process holds its share of what was before
            self.finite_until = self.state.batch

            try:
                for batch, images in enumerate(self.epoch(self.state.batch), self.state.batch):
                    sums += self.step(images, batch)
                    self.state.batch = batch + 1
                    if self.each_batch:
                        self._check_loss(sums[0].item())
                    requests.at_once = False
                    self.progress.batch(self.state, self.batches, sums * self.world.size)
                    action = self.world.agree(self._wish(requests))
                    if action == STOP:
                        raise Interrupted(requests.signal_number)
                    if action == SAVE:
                        self._keep(save, sums, before)
                self._end_epoch(self.world.total(sums.clone()), requests)
            except Interrupted:
                if not requests.at_once:
                    self._keep(save, sums, before)
                raise
            self.state.seconds = before + time.monotonic()
            self.progress.epoch(self.state)
            if self.world.agree(time.monotonic() - self.saved > self.saving / SAVING):
                self._keep(save, torch.zeros_like(sums), before)
        if self.views:
            try:
                scores = evaluate(self.network, self.views(), *self.images.statistics, self.world, requests)
            except Interrupted:
                self._keep(save, torch.zeros(2, dtype=torch.float64, device=self.device), before)
                raise
            self.accuracy_views = scores.accuracy
            self.state.seconds = before + time.monotonic()
        self._check_tensors()

    def _check_loss(self, loss_sum: float) -> None:
        """Raise Diverged where the epoch's sum of losses is not finite; all processes give the same sum."""
        if not isfinite(loss_sum):
            first, last = self.finite_until + 1, self.state.batch
            batches = f"batch {last}" if first == last else f"batches {first} to {last}"
            raise self._diverged(f"the loss of {batches} of {self.batches} is {loss_sum}")
        self.finite_until = self.state.batch

    def _check_tensors(self) -> None:
        """Raise Diverged where a weight, a factor or a statistic is not finite."""
        for name, tensor in self.network.state_dict().items():
            if not tensor.isfinite().all():
                raise self._diverged(f"{name} holds a value that is not finite")

    def _diverged(self, found: str) -> Diverged:
        training = self.training
        place = self.state.epoch + self.state.batch / self.batches
        rate = training.learning_rate * factor(training.schedule, min(place, training.epochs - 1e-9) / training.epochs)
        return Diverged(f"{found}, at a learning rate of {rate:.3g}")

    def _keep(self, save: Callable[[], None], sums: Tensor, before: float) -> None:
        """Save, with the current epoch's sums; `before`: the training's seconds minus time.monotonic()'s."""
        began = time.monotonic()
        self.state.loss_sum, self.state.correct = self.world.total(sums.clone()).tolist()
        self._check_loss(self.state.loss_sum)
        self._check_tensors()
        self.state.seconds = before + began
        save()
        self.saved = time.monotonic()
        self.saving = self.saved - began

    def _wish(self, requests: StopRequests) -> int:
        if requests:
            return STOP
        return SAVE if time.monotonic() - self.saved > self.compute.checkpoint_seconds else GO

    def epoch(self, first: int = 0) -> Iterator[tuple[Tensor, ...]]:
        """The current epoch's batches from number `first` on, of each this process's part."""
        size = self.training.batch_size
        return self.images.batches(self.seed, self.state.epoch, size, first, self.world.part(size))

    def step(self, images: tuple[Tensor, ...], batch: int) -> Tensor:
        """A step on a batch of the current epoch; this process's share of (cross-entropy, number correct), float64."""
        training = self.training
        done = (self.state.epoch * self.batches + batch) / (training.epochs * self.batches)
        set_rate(self.optimizers, factor(training.schedule, done))
        return self.update(*images)

    def _update(self, *batch: Tensor) -> Tensor:
        loss, cross_entropy, correct = self.objective(*batch)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.descend()
        return torch.stack([cross_entropy.detach().double() / self.world.size, correct.double()])

    def descend(self) -> None:
        """The optimizers' step, and the scaling factors' projection."""
        for optimizer in self.optimizers:
            optimizer.step()
        keep_positive(self.factors)

    def _end_epoch(self, sums: Tensor, requests: StopRequests) -> None:
        loss, correct = sums.tolist()
        self._check_loss(loss)
        state, training = self.state, self.training
        scores: Scores | None = None
        if (state.epoch + 1) % training.evaluate_every == 0 or state.epoch + 1 == training.epochs:
            scores = evaluate(self.network, self.scored, *self.images.statistics, self.world, requests)
            if not isfinite(scores.loss):
                raise self._diverged(f"the loss of the {len(self.scored)} scored images is {scores.loss}")
        last = (state.epoch + 1) - 1 / self.batches  # where the epoch's last step stood, also after a resume there
        state.epoch, state.batch, state.loss_sum, state.correct = state.epoch + 1, 0, 0.0, 0.0
        state.images += self.batches * training.batch_size
        row: dict[str, Any] = {
            "epoch": state.epoch,
            "learning_rate": training.learning_rate * factor(training.schedule, last / training.epochs),
            "train_loss": loss / self.batches,
            "train_accuracy": 100 * correct / (self.batches * training.batch_size),
            "evaluation_loss": scores and scores.loss,
            "evaluation_accuracy": scores and scores.accuracy,
        }
        if self.scored.top5:
            row["evaluation_top5"] = scores and scores.top5
        state.history.append(row | layer_statistics(self.network, self.signs))
        for name, value in state.history[-1].items():
            if value is not None and not isfinite(value):
                raise self._diverged(f"{name} is {value}")

    def alphas_at_floor(self) -> int:
        """How many scaling factors stand at their least value."""
        return sum(int((factor.detach() <= ALPHA_FLOOR).sum()) for factor in self.factors)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that the rest of the training depends on."""
        network = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        signs = {f"signs/{name}": sign for name, sign in self.signs.items()}
        return network | signs | state_tensors(self.optimizers)

    def restore(self, tensors: dict[str, Tensor], state: State) -> None:
        """Go on from a checkpoint's tensors and state."""
        named = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        strip = {
            kind: {k[len(kind) :]: v for k, v in named.items() if k.startswith(kind)} for kind in ("network/", "signs/")
        }
        self.network.load_state_dict(strip["network/"])
        self.signs = strip["signs/"]
        restore_state(self.optimizers, tensors)
        self.state = state

"""The training loop: one network, one schedule, resumable after any step."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trained_binarization.binarization.layers import ALPHA_FLOOR, alphas, binary_layers, keep_positive, scaling_penalty
from trained_binarization.datasets.augment import Augmentation, normalise
from trained_binarization.study import Compute, Training
from trained_binarization.training.distributed import ALONE, World, data_parallel
from trained_binarization.training.graph import GraphedUpdate
from trained_binarization.training.optimizers import build_optimizers, restore_state, set_rate, state_tensors
from trained_binarization.training.progress import Progress
from trained_binarization.training.schedules import factor


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

EVALUATION_BATCH = 250
"""Images scored at a time: between two of them an evaluation can be stopped."""


@torch.no_grad()
def evaluate(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    mean: Tensor,
    std: Tensor,
    world: World = ALONE,
    requests: StopRequests | None = None,
) -> tuple[float, float]:
    """(cross-entropy in nats, accuracy in percent) on uint8 images (N, H, W, 3), all of them, in float32.

    The processes share the batches. Raises Interrupted where one of them is asked to stop.
    """
    network.eval()
    totals = torch.zeros(2, dtype=torch.float64, device=images.device)
    batches = list(zip(images.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True))
    for first in range(0, len(batches), world.size):
        if world.agree(STOP if requests else GO) == STOP:
            raise Interrupted(requests.signal_number if requests else None)
        for batch, target in batches[first + world.rank : first + world.rank + 1]:
            logits = network(normalise(batch, mean, std))
            loss = F.cross_entropy(logits, target, reduction="sum")
            totals += torch.stack([loss.double(), (logits.argmax(1) == target).sum().double()])
    network.train()
    loss_sum, correct = world.total(totals).tolist()
    return loss_sum / len(labels), 100 * correct / len(labels)


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
    """Trains a network by a schedule; `run` returns at the end, or raises Interrupted after saving."""

    def __init__(
        self,
        network: nn.Module,
        training: Training,
        compute: Compute,
        seed: int,
        labels: Tensor,
        scored: tuple[Tensor, Tensor],
        augmentation: Augmentation,
        progress: Progress,
        world: World = ALONE,
    ) -> None:
        self.world = world
        self.network, self.training, self.compute, self.seed = network, training, compute, seed
        self.labels, self.scored, self.augmentation, self.progress = labels, scored, augmentation, progress
        self.device = self.labels.device
        self.factors = alphas(network)
        self.model = network if world.size == 1 else data_parallel(network)
        self.optimizers = build_optimizers(network, training)
        self.batches = len(self.labels) // training.batch_size
        self.state = State()
        self.signs: dict[str, Tensor] = {}
        layer_statistics(network, self.signs)
        self.objective: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]] = self._objective
        if compute.compile:
            # Forget the networks before this one, or the ninth of a process would silently run eagerly.
            torch.compiler.reset()
            # dynamic=False: every batch has one shape. Evaluation stays eager, in float32.
            self.objective = torch.compile(self._objective, dynamic=False)
        self.update: Callable[[Tensor], Tensor] = self._update
        if self.device.type == "cuda" and world.size == 1:
            self.update = GraphedUpdate(self._update)

    def _objective(self, choices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(loss to minimise, cross-entropy, number correct) of the batch that the choices name."""
        images, target = self.augmentation.batch(choices), self.labels[choices[0]]
        if not self.compute.channels_last:
            images = images.contiguous()
        enabled = self.compute.autocast == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
            logits = self.model(images)
        cross_entropy = F.cross_entropy(logits.float(), target, label_smoothing=self.training.label_smoothing)
        correct = (logits.argmax(1) == target).sum()
        return cross_entropy + scaling_penalty(self.network), cross_entropy, correct

    def run(self, save: Callable[[], None], requests: StopRequests) -> None:
        """Train to the end, or to a request to stop. `save` writes a checkpoint of `tensors` and `state`."""
        self.network.train()
        self.saved, self.saving = time.monotonic(), 0.0
        before = self.state.seconds - time.monotonic()
        while self.state.epoch < self.training.epochs:
            choices = self.augmentation.draw(self.seed, self.state.epoch)
            sums = torch.tensor([self.state.loss_sum, self.state.correct], dtype=torch.float64, device=self.device)
            sums /= self.world.size  # each process holds its share of what was before

            try:
                for batch in range(self.state.batch, self.batches):
                    sums += self.step(choices, batch)
                    self.state.batch = batch + 1
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

    def _keep(self, save: Callable[[], None], sums: Tensor, before: float) -> None:
        """Save, with the current epoch's sums; `before`: the training's seconds minus time.monotonic()'s."""
        began = time.monotonic()
        self.state.loss_sum, self.state.correct = self.world.total(sums.clone()).tolist()
        self.state.seconds = before + began
        save()
        self.saved = time.monotonic()
        self.saving = self.saved - began

    def _wish(self, requests: StopRequests) -> int:
        if requests:
            return STOP
        return SAVE if time.monotonic() - self.saved > self.compute.checkpoint_seconds else GO

    def step(self, choices: Tensor, batch: int) -> Tensor:
        """One step of the current epoch; returns this process's share of (cross-entropy, number correct), float64."""
        size, training = self.training.batch_size, self.training
        done = (self.state.epoch * self.batches + batch) / (training.epochs * self.batches)
        set_rate(self.optimizers, factor(training.schedule, done))
        return self.update(self.world.part(choices[:, batch * size : (batch + 1) * size]).contiguous())

    def _update(self, choices: Tensor) -> Tensor:
        loss, cross_entropy, correct = self.objective(choices)
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
        state, training = self.state, self.training
        evaluation_loss = evaluation_accuracy = None
        if (state.epoch + 1) % training.evaluate_every == 0 or state.epoch + 1 == training.epochs:
            mean, std = self.augmentation.mean, self.augmentation.std
            scored = evaluate(self.network, *self.scored, mean, std, self.world, requests)
            evaluation_loss, evaluation_accuracy = scored
        last = (state.epoch + 1) - 1 / self.batches  # where the epoch's last step stood, also after a resume there
        state.epoch, state.batch, state.loss_sum, state.correct = state.epoch + 1, 0, 0.0, 0.0
        state.images += self.batches * training.batch_size
        row: dict[str, Any] = {
            "epoch": state.epoch,
            "learning_rate": training.learning_rate * factor(training.schedule, last / training.epochs),
            "train_loss": loss / self.batches,
            "train_accuracy": 100 * correct / (self.batches * training.batch_size),
            "evaluation_loss": evaluation_loss,
            "evaluation_accuracy": evaluation_accuracy,
        }
        state.history.append(row | layer_statistics(self.network, self.signs))

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

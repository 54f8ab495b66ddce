"""The training loop: one network, one schedule, resumable after any step."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trained_binarization.binarization.layers import ALPHA_FLOOR, alphas, binary_layers, keep_positive, scaling_penalty
from trained_binarization.datasets.augment import Augmentation, normalise
from trained_binarization.study import Compute, Training
from trained_binarization.training.graph import GraphedUpdate
from trained_binarization.training.optimizers import build_optimizers, restore_state, set_rate, state_tensors
from trained_binarization.training.progress import Progress
from trained_binarization.training.schedules import factor


class Interrupted(Exception):
    """The training stopped before its end, with a checkpoint; `signal_number` is None where a time limit was met."""

    def __init__(self, signal_number: int | None) -> None:
        super().__init__("interrupted")
        self.signal_number = signal_number


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """SIGTERM and SIGINT, collected instead of obeyed at once, so that the training can save first."""
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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


@torch.no_grad()
def evaluate(network: nn.Module, images: Tensor, labels: Tensor, mean: Tensor, std: Tensor) -> tuple[float, float]:
    """(cross-entropy in nats, accuracy in percent) on uint8 images (N, H, W, 3), all of them, in float32."""
    network.eval()
    loss = correct = torch.zeros((), dtype=torch.float64, device=images.device)
    for batch, target in zip(images.split(1000), labels.split(1000), strict=True):
        logits = network(normalise(batch, mean, std))
        loss = loss + F.cross_entropy(logits, target, reduction="sum").double()
        correct = correct + (logits.argmax(1) == target).sum()
    network.train()
    return loss.item() / len(labels), 100 * correct.item() / len(labels)


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
    ) -> None:
        self.network, self.training, self.compute, self.seed = network, training, compute, seed
        self.labels, self.scored, self.augmentation, self.progress = labels, scored, augmentation, progress
        self.device = self.labels.device
        self.factors = alphas(network)
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
        if self.device.type == "cuda":
            self.update = GraphedUpdate(self._update)

    def _objective(self, choices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(loss to minimise, cross-entropy, number correct) of the batch that the choices name."""
        images, target = self.augmentation.batch(choices), self.labels[choices[0]]
        if not self.compute.channels_last:
            images = images.contiguous()
        enabled = self.compute.autocast == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
            logits = self.network(images)
        cross_entropy = F.cross_entropy(logits.float(), target, label_smoothing=self.training.label_smoothing)
        correct = (logits.argmax(1) == target).sum()
        return cross_entropy + scaling_penalty(self.network), cross_entropy, correct

    def run(self, save: Callable[[], None], received: list[int], deadline: float | None = None) -> None:
        """Train to the end. `save` writes a checkpoint; `deadline` is on time.monotonic()'s clock."""
        saved = time.monotonic()
        self.network.train()
        while self.state.epoch < self.training.epochs:
            choices = self.augmentation.draw(self.seed, self.state.epoch)
            started, seconds = time.monotonic(), self.state.seconds
            sums = torch.tensor([self.state.loss_sum, self.state.correct], dtype=torch.float64, device=self.device)
            for batch in range(self.state.batch, self.batches):
                sums += self._step(choices, batch)
                self.state.batch = batch + 1
                self.progress.batch(self.state, self.batches, sums)
                now = time.monotonic()
                stopping = bool(received) or (deadline is not None and now > deadline)
                if stopping or now - saved > self.compute.checkpoint_seconds:
                    self.state.loss_sum, self.state.correct = sums.tolist()
                    self.state.seconds = seconds + time.monotonic() - started
                    save()
                    saved = now
                if stopping:
                    raise Interrupted(received[0] if received else None)
            self._end_epoch(sums)
            self.state.seconds = seconds + time.monotonic() - started
            self.progress.epoch(self.state)
            if time.monotonic() - saved > self.compute.checkpoint_seconds:
                save()
                saved = time.monotonic()

    def _step(self, choices: Tensor, batch: int) -> Tensor:
        """One step; returns the batch's sums, float64 (2,): cross-entropy and number correct."""
        size, training = self.training.batch_size, self.training
        done = (self.state.epoch * self.batches + batch) / (training.epochs * self.batches)
        set_rate(self.optimizers, factor(training.schedule, done))
        return self.update(choices[:, batch * size : (batch + 1) * size].contiguous())

    def _update(self, choices: Tensor) -> Tensor:
        loss, cross_entropy, correct = self.objective(choices)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        keep_positive(self.factors)
        return torch.stack([cross_entropy.detach().double(), correct.double()])

    def _end_epoch(self, sums: Tensor) -> None:
        loss, correct = sums.tolist()
        state, training = self.state, self.training
        last = (state.epoch + 1) - 1 / self.batches  # where the epoch's last step stood, also after a resume there
        state.epoch, state.batch, state.loss_sum, state.correct = state.epoch + 1, 0, 0.0, 0.0
        state.images += self.batches * training.batch_size
        row: dict[str, Any] = {
            "epoch": state.epoch,
            "learning_rate": training.learning_rate * factor(training.schedule, last / training.epochs),
            "train_loss": loss / self.batches,
            "train_accuracy": 100 * correct / (self.batches * training.batch_size),
            "evaluation_loss": None,
            "evaluation_accuracy": None,
        }
        if state.epoch % training.evaluate_every == 0 or state.epoch == training.epochs:
            mean, std = self.augmentation.mean, self.augmentation.std
            row["evaluation_loss"], row["evaluation_accuracy"] = evaluate(self.network, *self.scored, mean, std)
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

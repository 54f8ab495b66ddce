"""How fast training is: this engine and the stock way, in turn, on the same network, batch and images."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from trained_binarization.binarization.layers import BinaryConv2d, alphas, keep_positive, scaling_penalty
from trained_binarization.datasets import open_dataset
from trained_binarization.datasets.images import Images
from trained_binarization.errors import UserError
from trained_binarization.evidence.markdown import escape
from trained_binarization.provenance import provenance
from trained_binarization.study import FULL_PRECISION, METHOD, Compute, Run, SmallImages, Study
from trained_binarization.training.device import describe, set_up
from trained_binarization.training.loop import Trainer
from trained_binarization.training.progress import Progress
from trained_binarization.training.runs import network_of

REPEATS = 10
"""How often each stage, convolution and matrix product is timed; the median counts."""


def benchmark_training(study: Study, images: int, rounds: int, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure the study's first network, full precision and by the method, on its own data; every speed has a spread.

    A round trains `images` images the stock way, then as many by this engine; what is not timed are a first round,
    compilation in it, and evaluation.
    """
    if not isinstance(study.dataset, SmallImages) or study.dataset.name != "cifar10":
        raise UserError(f"study {study.study}: dataset.name: found '{study.dataset.name}'; allowed: 'cifar10'")
    refuse_distillation(study)
    of_now = provenance()  # of the code that is loaded, not of what lies there at the end
    device = set_up(study.compute)
    data = open_dataset(study.dataset, study.networks[0])
    assert isinstance(data, Images)
    batch = max(study.pretrain.batch_size, study.finetune.batch_size)
    if not batch <= images <= len(data.train_labels):
        raise UserError(f"--images: found {images}; allowed: {batch} (a batch) to {len(data.train_labels)}")
    say("the ceiling: a matrix product")
    ceiling = _ceiling(device, study.compute.autocast)
    name, driver = describe(device)
    return {
        "study": study.study,
        "network": study.networks[0],
        "width": study.architecture[study.networks[0]].width,
        "images": images,
        "rounds": rounds,
        "compute": study.compute.model_dump(),
        "device": name,
        "driver": driver,
        "threads": torch.get_num_threads(),
        "ceiling": ceiling,
        "trainings": [
            _measure(study, study.find(study.networks[0], variant, seed), data, device, images, rounds, ceiling, say)
            for variant, seed in ((FULL_PRECISION, study.seeds.pretrain[0]), (METHOD, study.seeds.finetune[0]))
        ],
        **of_now,
    }


def refuse_distillation(study: Study) -> None:
    """UserError where the binary network learns from a parent: a benchmark has none."""
    if study.finetune.distillation:
        raise UserError(f"study {study.study}: finetune.distillation: found one; allowed: null, to be measured")


def _measure(
    study: Study,
    run: Run,
    data: Images,
    device: torch.device,
    images: int,
    rounds: int,
    ceiling: dict[str, Any],
    say: Callable[[str], None],
) -> dict[str, Any]:
    batch_size = study.training(run).batch_size
    steps = images // batch_size
    engine = _engine(study, run, data, device)
    batch = next(engine.epoch())

    def engine_round() -> None:
        for step, batch in enumerate(islice(engine.epoch(), steps)):
            engine.step(batch, step)

    stock_round = _stock(study, run, data, device, images)
    seconds: dict[str, list[float]] = {"stock": [], "engine": []}
    for number in range(rounds + 1):
        for way, one_round in (("stock", stock_round), ("engine", engine_round)):
            elapsed = _seconds(one_round, device)
            say(f"{run.variant}: round {number} of {rounds}, {way}: {steps * batch_size / elapsed:.0f} images/s")
            if number:
                seconds[way].append(elapsed)
    speeds = {way: [steps * batch_size / second for second in timed] for way, timed in seconds.items()}
    flops_per_image = _flops(engine, batch) / batch_size
    flops = flops_per_image * statistics.median(speeds["engine"])
    return {
        "training": run.variant,
        "batch_size": batch_size,
        "images_per_second": {way: spread(speed) for way, speed in speeds.items()},
        "ratio": spread([fast / slow for fast, slow in zip(speeds["engine"], speeds["stock"], strict=True)]),
        "flops_per_image": flops_per_image,
        "flops": flops,
        "share_of_ceiling": flops / ceiling["flops"],
        "seconds_per_batch": _stages(engine, batch, device) | _convolutions(engine, batch, device),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    _wait(device)
    began = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _median_seconds(work: Callable[[], Any], device: torch.device) -> float:
    work()
    return statistics.median(_seconds(work, device) for _ in range(REPEATS))


def _engine(study: Study, run: Run, data: Images, device: torch.device) -> Trainer:
    """This project's trainer, as a run has it."""
    network = network_of(study, run, data)
    memory = torch.channels_last if study.compute.channels_last else torch.contiguous_format
    network.to(device=device, memory_format=memory)  # type: ignore[call-overload]
    training = study.training(run)
    progress = Progress("benchmark", training.epochs, training.batch_size, bar=False)
    images, scored = data.trained_on(study.dataset, device), data.scored(0, device)
    return Trainer(network, training, study.compute, run.seed, images, scored, progress)


def _stock(study: Study, run: Run, data: Images, device: torch.device, images: int) -> Callable[[], None]:
    """An epoch as repositories of binary networks write it.

    torchvision's CIFAR10 and transforms, a DataLoader with a worker a thread, float32, default layout, eager, torch's
    default optimizer, the loss read after every batch.
    """
    from torchvision import datasets, transforms

    training = study.training(run)
    assert isinstance(study.dataset, SmallImages)
    mean, std = (values.tolist() for values in data.statistics(0))
    transform = transforms.Compose(
        [
            transforms.RandomCrop(data.size, study.dataset.padding),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([m / 255 for m in mean], [s / 255 for s in std]),
        ]
    )
    whole = datasets.CIFAR10(study.dataset.root, transform=transform)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.Subset(whole, range(images)),
        training.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=study.compute.threads,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    network = network_of(study, run, data).to(device)
    factors = alphas(network)
    optimizer: torch.optim.Optimizer
    if training.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            network.parameters(), training.learning_rate, training.momentum, weight_decay=training.weight_decay
        )
    else:
        optimizer = torch.optim.Adam(network.parameters(), training.learning_rate, (training.momentum, 0.999))

    def epoch() -> None:
        for batch, target in loader:
            logits = network(batch.to(device, non_blocking=True))
            loss = F.cross_entropy(logits, target.to(device, non_blocking=True)) + scaling_penalty(network)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            keep_positive(factors)
            loss.item()

    return epoch


def _ceiling(device: torch.device, precision: str) -> dict[str, Any]:
    """FLOP/s of a large matrix product in the training's precision, the best of several."""
    size = 16384 if device.type == "cuda" else 4096
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    _seconds(lambda: a @ b, device)
    best = min(_seconds(lambda: a @ b, device) for _ in range(REPEATS))
    return {"precision": str(kind).removeprefix("torch."), "size": size, "flops": 2 * size**3 / best}


def _flops(engine: Trainer, batch: tuple[Tensor, ...]) -> float:
    """Floating-point operations of a step: its matrix products and convolutions, both passes, counted by torch."""
    images, _ = engine.images.load(*batch)
    with FlopCounterMode(display=False) as counter:
        engine.network(images).sum().backward()
    engine.network.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def _stages(engine: Trainer, batch: tuple[Tensor, ...], device: torch.device) -> dict[str, float]:
    """Where a step's time goes, each stage waited for; on a GPU launched one by one, without the step's graph."""
    times: dict[str, list[float]] = {"data": [], "forward": [], "backward": [], "step": []}
    for _ in range(REPEATS + 1):
        for optimizer in engine.optimizers:
            optimizer.zero_grad(set_to_none=True)
        times["data"].append(_seconds(partial(engine.images.load, *batch), device))
        objective: list[tuple[Tensor, ...]] = []
        times["forward"].append(_seconds(lambda: objective.append(engine.objective(*batch)), device))  # noqa: B023
        times["backward"].append(_seconds(objective[0][0].backward, device))
        times["step"].append(_seconds(engine.descend, device))
    medians = {stage: statistics.median(seconds[1:]) for stage, seconds in times.items()}
    # The objective makes its batch itself, in one piece with the network.
    return medians | {"forward": medians["forward"] - medians["data"]}


def table(result: dict[str, Any]) -> str:
    """The result as Markdown: what was measured, on what, and where the time goes."""
    how, ceiling = Compute.model_validate(result["compute"]).how, result["ceiling"]
    lines = [
        f"# Training {result['network']} (width {result['width']:g}): this engine and the stock way",
        "",
        f"On {escape(result['device'])}, {result['driver'] or 'no GPU'}, {result['threads']} threads, torch "
        f"{result['packages']['torch']}, commit {result['commit'][:7]}. In turn, {result['rounds']} rounds of "
        f"{result['images']} images each; median (least to most). Engine: {how}. Stock: torchvision's transforms in a "
        "DataLoader with workers, float32, default layout, eager.",
        "",
        f"The machine's ceiling: {ceiling['flops'] / 1e9:,.0f} GFLOP/s, a {ceiling['precision']} matrix product of "
        f"{ceiling['size']} x {ceiling['size']}.",
        "",
        "| training | batch | stock, images/s | engine, images/s | ratio | engine, GFLOP/s | share of the ceiling |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["trainings"]:
        stock, engine = (_cell(row["images_per_second"][way], "{:,.0f}") for way in ("stock", "engine"))
        lines.append(
            f"| {row['training']} | {row['batch_size']} | {stock} | {engine} | {_cell(row['ratio'], '{:.2f}')} | "
            f"{row['flops'] / 1e9:,.0f} | {100 * row['share_of_ceiling']:.0f} % |"
        )
    stages = list(result["trainings"][0]["seconds_per_batch"])
    lines += [
        "",
        "Milliseconds a batch, each stage waited for; and the convolutions of that batch by themselves, in the same "
        "precision and layout, part of forward and backward.",
        "",
        f"| training | {' | '.join(stages)} |",
        f"|---|{'---|' * len(stages)}",
    ]
    for row in result["trainings"]:
        cells = " | ".join(f"{1e3 * row['seconds_per_batch'][stage]:.1f}" for stage in stages)
        lines.append(f"| {row['training']} | {cells} |")
    return "\n".join(lines) + "\n"


def _cell(spread: dict[str, float], form: str) -> str:
    median, least, most = (form.format(spread[key]) for key in ("median", "least", "most"))
    return f"{median} ({least} to {most})"


def _convolutions(engine: Trainer, batch: tuple[Tensor, ...], device: torch.device) -> dict[str, float]:
    """The step's convolutions by themselves, in the training's precision and layout: no step can be faster."""
    inputs: list[tuple[Any, Tensor]] = []
    handles = [
        module.register_forward_pre_hook(lambda module, arguments: inputs.append((module, arguments[0])))
        for module in engine.network.modules()
        if isinstance(module, nn.Conv2d | BinaryConv2d)
    ]
    images, _ = engine.images.load(*batch)
    with torch.no_grad():
        engine.network(images if engine.compute.channels_last else images.contiguous())
    for handle in handles:
        handle.remove()
    kind = torch.bfloat16 if engine.compute.autocast == "bfloat16" else torch.float32
    seconds = {"convolutions forward": 0.0, "convolutions backward": 0.0}
    for number, (module, x) in enumerate(inputs):
        x = x.detach().to(kind).requires_grad_(number > 0)  # the images need no gradient
        weight = module.weight.detach().to(kind).requires_grad_()
        convolve = partial(F.conv2d, x, weight, stride=module.stride, padding=module.padding)
        output = convolve()
        wanted = [tensor for tensor in (x, weight) if tensor.requires_grad]
        back = partial(torch.autograd.grad, output, wanted, torch.ones_like(output), retain_graph=True)
        seconds["convolutions forward"] += _median_seconds(convolve, device)
        seconds["convolutions backward"] += _median_seconds(back, device)
    return seconds

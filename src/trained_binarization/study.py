"""A study: one file that says everything about one replication, and the list of runs that it means.

A study file states every key that has no default here. A key with a default was added after the first records: a file
without it means the default, and the default means what was trained before there was the key. So a new key needs a
default, and the default must never change (records.py, `settings_of`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from trained_binarization.binarization.method import Method
from trained_binarization.errors import UserError, cut, shown
from trained_binarization.settings import Identifier, NotNegative, Positive, Sentence, Settings, load

FULL_PRECISION = "full_precision"
METHOD = "method"

LOCAL = "quick"
"""The study that every user trains: git holds no results of it, only reference/quick.json."""

NetworkName = Literal["vgg_small", "alexnet", "resnet18"]
# Upper bounds lie far above any use, and within what a machine can hold.
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1, max_length=1000)]
Pixels = Annotated[int, Field(ge=8, le=4096)]
HeldOut = Annotated[int, Field(ge=0, le=10_000_000)]
Epochs = Annotated[int, Field(ge=1, le=100_000)]
Width = Annotated[float, Field(gt=0, le=16)]
Threads = Annotated[int, Field(ge=1, le=1024)]


def _short_names(folder: str) -> str:
    if long := [part for part in Path(folder).parts if len(os.fsencode(part)) > 255]:
        raise ValueError(f"found a name of {len(os.fsencode(long[0]))} bytes; allowed: at most 255")
    return folder


def _no_other_folder(study: str) -> str:
    if study == "benchmarks":
        raise ValueError("found 'benchmarks'; allowed: any other name, since results/benchmarks holds the benchmarks")
    return study


Folder = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_short_names)]


class SmallImages(Settings):
    """Images that fit into memory: which, where they lie, and how training batches are augmented."""

    name: Literal["digits", "cifar10"]
    root: Folder
    download: bool
    validation: HeldOut  # last training images, held out for tuning; scored instead of the test set
    padding: Annotated[int, Field(ge=0, le=256)]  # pixels
    flip: bool
    cutout: Annotated[int, Field(ge=1, le=256)] | None = None  # pixels a side of a square blanked in each; null: none


class ImageFolder(Settings):
    """Image files as {train,val}/<class>/<file>, read while they are trained on."""

    name: Literal["imagenet", "imagenette"]
    root: Folder
    cache: Folder  # where `prepare` keeps its index and, if asked, the smaller copy
    workers: Annotated[int, Field(ge=0, le=256)]  # processes that read images; 0: the training's own
    decoder: Literal["pillow", "dali"] = "pillow"  # of training images; dali: NVIDIA's, on a GPU its JPEG decoder
    validation: HeldOut  # training images, drawn once for all, held out for tuning
    copy_side: Pixels | None  # short side of a smaller copy that is read instead; null: no copy
    image_size: dict[str, Pixels]  # pixels a side that each network sees
    resize: Pixels  # evaluation: short side before the centre crop
    least_area: Annotated[float, Field(gt=0, le=1)]  # augmentation: the random crop's least share of the image
    flip: bool


Dataset = SmallImages | ImageFolder


class Architecture(Settings):
    """The switches of one network's definition."""

    width: Width  # multiplies every hidden layer's channels


class ResNetArchitecture(Architecture):
    """ResNet-18's further switch."""

    binary_downsample: bool  # the 1x1 convolutions of its shortcuts


def _architecture_kind(value: Any) -> str:
    """Which of the two is meant; whether it is the network's is checked afterwards."""
    keys = value if isinstance(value, dict) else vars(value) if isinstance(value, Architecture) else ()
    return "ResNetArchitecture" if "binary_downsample" in keys else "Architecture"


class Training(Settings):
    """One training: its length, optimizer and schedule. Learning rates are those at the schedule's top."""

    epochs: Epochs
    batch_size: Annotated[int, Field(ge=2, le=65_536)]
    optimizer: Literal["sgd", "adam"]
    learning_rate: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)]  # SGD's (Nesterov); Adam's beta_1
    weight_decay: NotNegative  # on everything but latent weights and scaling factors
    schedule: Literal["cosine", "step", "one_cycle"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    evaluate_every: Epochs  # the last epoch is always evaluated


class Pretraining(Training):
    """Training of a full-precision network."""

    start: Literal["torchvision"] | None = Field(None, alias="from")  # ResNet-18's published weights; null: random ones


class Distillation(Settings):
    """What of the loss follows the parent's predictions instead of the labels (Hinton et al. 2015)."""

    share: Annotated[float, Field(gt=0, le=1)]
    temperature: Annotated[float, Field(gt=0, le=1000)]  # divides both networks' logits there


class Finetuning(Training):
    """Training of a binary network: what a full-precision network does not have."""

    latent_weight_decay: NotNegative
    alpha_learning_rate: Positive  # plain SGD on the scaling factors, same schedule
    distillation: Distillation | None = None  # null: labels alone, as the paper


def method_of(content: Any) -> Method:
    """A mapping of switches as a Method, which checks itself; ValueError for the first fault."""
    if isinstance(content, Method):
        return content
    if not isinstance(content, dict):
        raise ValueError(f"found {shown(content)}; allowed: a mapping with the keys of Method")
    known = {field.name for field in fields(Method)}
    if unknown := [key for key in content if key not in known]:
        raise ValueError(f"{cut(str(unknown[0]))}: unknown key; allowed: only keys that the schema has")
    return Method(**content)


class Seed(Settings):
    """The seeds of each stage. A child starts from the parent of its seed; differences are paired by seed."""

    pretrain: Seeds
    finetune: Seeds
    ablate: Seeds


class Compute(Settings):
    """How it is computed: speed and precision, not what is trained (but for `autocast`)."""

    device: Literal["auto", "cpu", "cuda"]
    threads: Threads
    autocast: Literal["bfloat16", "none"]
    channels_last: bool
    compile: bool
    checkpoint_seconds: Annotated[float, Field(gt=0, le=1e9)]

    @property
    def how(self) -> str:
        """Precision, layout and compilation, in words."""
        precision = "float32" if self.autocast == "none" else self.autocast
        layout = "channels last" if self.channels_last else "default layout"
        return f"{precision}, {layout}, {'compiled' if self.compile else 'eager'}"


class Run(Settings):
    """One training of one network, one variant, one seed."""

    network: NetworkName
    variant: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where the run's files lie, below the study's results folder."""
        return Path("runs", self.network, self.variant, f"seed{self.seed}")

    def __str__(self) -> str:
        return f"{self.network}/{self.variant}/seed{self.seed}"


class Study(Settings):
    """One replication in full: data set, networks, schedules, seeds, variants."""

    study: Annotated[Identifier, AfterValidator(_no_other_folder)]
    title: Sentence
    stand_in: Sentence | None  # what it stands in with; null where it is the paper's own setting
    dataset: Annotated[Dataset, Field(discriminator="name")]
    networks: Annotated[list[NetworkName], Field(min_length=1)]
    architecture: dict[
        NetworkName,
        Annotated[
            Annotated[Architecture, Tag("Architecture")] | Annotated[ResNetArchitecture, Tag("ResNetArchitecture")],
            Discriminator(_architecture_kind),
        ],
    ]
    seeds: Seed
    pretrain: Pretraining
    finetune: Finetuning
    method: Annotated[Method, BeforeValidator(method_of)]
    ablations: Annotated[list[Identifier], Field(max_length=100)]
    variants: Annotated[dict[Identifier, dict[str, Any]], Field(max_length=100)]
    compute: Compute

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        def same(key: str, found: list[str], other: str, allowed: list[str]) -> None:
            if len(set(allowed)) < len(allowed):
                raise ValueError(f"{other}: found {allowed}; allowed: each name once")
            if sorted(found) != sorted(allowed):
                raise ValueError(f"{key}: found {sorted(found)}; allowed: exactly those of {other}, {sorted(allowed)}")

        def within(key: str, found: list[int], other: str, allowed: list[int]) -> None:
            if len(set(found)) < len(found) or not set(found) <= set(allowed):
                raise ValueError(f"seeds.{key}: found {found}; allowed: distinct seeds of seeds.{other}, {allowed}")

        same("architecture", list(self.architecture), "networks", list(self.networks))
        for network, one in self.architecture.items():
            if isinstance(one, ResNetArchitecture) != (network == "resnet18"):
                keys = "width, binary_downsample" if network == "resnet18" else "width"
                found = ", ".join(one.model_dump())
                raise ValueError(f"architecture.{network}: found {found}; allowed: {keys}")
        if isinstance(self.dataset, ImageFolder):
            same("dataset.image_size", list(self.dataset.image_size), "networks", list(self.networks))
            if (most := max(self.dataset.image_size.values())) > self.dataset.resize:
                raise ValueError(
                    f"dataset.resize: found {self.dataset.resize}; allowed: at least {most}, the image_size"
                )
        whole = self.networks == ["resnet18"] and self.architecture["resnet18"].width == 1
        if self.pretrain.start and not (whole and self.dataset.name == "imagenet"):
            raise ValueError(
                f"pretrain.from: found '{self.pretrain.start}'; allowed: only with resnet18 alone, width 1, on imagenet"
            )
        same("variants", list(self.variants), "ablations", self.ablations)
        within("pretrain", self.seeds.pretrain, "pretrain", self.seeds.pretrain)
        within("finetune", self.seeds.finetune, "pretrain", self.seeds.pretrain)
        within("ablate", self.seeds.ablate, "finetune", self.seeds.finetune)
        for name in self.ablations:
            if name in (FULL_PRECISION, METHOD):
                raise ValueError(f"ablations: found '{name}'; allowed: any other name, this one is taken")
            if self.variant(name) == self.method:
                raise ValueError(f"variants.{name}: found the method's own settings; allowed: at least one difference")
        for name in (METHOD, *self.ablations):
            if self.finetune.distillation and not self.parent(Run(network=self.networks[0], variant=name, seed=0)):
                raise ValueError(f"finetune.distillation: found one; allowed: null, since {name} has no parent")
        return self

    def variant(self, name: str) -> Method | None:
        """The binarization of a variant: the method with the variant's changes; None for full precision."""
        if name == FULL_PRECISION:
            return None
        if name == METHOD:
            return self.method
        if name not in self.variants:
            raise UserError(f"variant: found '{name}'; allowed: {', '.join([FULL_PRECISION, METHOD, *self.ablations])}")
        try:
            return method_of(asdict(self.method) | self.variants[name])
        except ValueError as error:
            raise ValueError(f"variants.{name}.{error}") from None

    def runs(self) -> Iterator[Run]:
        """Every run of the study, in order of worth: the method's seeds after their parents, then each ablation's."""
        for network in self.networks:
            for seed in self.seeds.pretrain:
                yield Run(network=network, variant=FULL_PRECISION, seed=seed)
            for seed in self.seeds.finetune:
                yield Run(network=network, variant=METHOD, seed=seed)
            for variant in self.ablations:
                for seed in self.seeds.ablate:
                    yield Run(network=network, variant=variant, seed=seed)

    def blocks(self, seeds: Sequence[int]) -> Iterator[Run]:
        """The runs of these seeds, seed by seed: a seed's parents, then the method's and every ablation's runs of it.

        A seed is a block: what a difference compares was trained side by side, by one processor.
        """
        for seed in seeds:
            yield from (run for run in self.runs() if run.seed == seed)

    def parent(self, run: Run) -> Run | None:
        """The full-precision run whose weights the run starts from; None where it starts from scratch."""
        method = self.variant(run.variant)
        if method is None or method.initialization == "scratch":
            return None
        return Run(network=run.network, variant=FULL_PRECISION, seed=run.seed)

    def start(self, run: Run) -> str | None:
        """Whose published weights the run starts from; None where it has none."""
        return self.pretrain.start if run.variant == FULL_PRECISION else None

    def find(self, network: str, variant: str, seed: int) -> Run:
        """The run of that name; UserError where the study has none."""
        runs = list(self.runs())
        for key, found, allowed in (
            ("network", network, [run.network for run in runs]),
            ("variant", variant, [run.variant for run in runs if run.network == network]),
            ("seed", seed, [run.seed for run in runs if (run.network, run.variant) == (network, variant)]),
        ):
            if found not in allowed:
                choices = ", ".join(map(str, dict.fromkeys(allowed)))
                raise UserError(f"study {self.study}: {key}: found {found!r}; allowed: {choices}")
        return Run(network=network, variant=variant, seed=seed)  # type: ignore[arg-type]  # just checked

    def command(self, run: Run) -> str:
        """The command that makes the run."""
        stage = {FULL_PRECISION: "pretrain", METHOD: "finetune"}.get(run.variant, "ablate")
        variant = f" --variant {run.variant}" if stage == "ablate" else ""
        return f"{command(stage, self)} --network {run.network}{variant} --seed {run.seed}"

    def training(self, run: Run) -> Training:
        """The schedule that the run follows."""
        return self.pretrain if run.variant == FULL_PRECISION else self.finetune


def command(stage: str, study: Study | str) -> str:
    """A stage's command for a study, such as to be copied whatever study is selected.

    --params names the study's file below studies/. Where there is none, or another study in it, the study can only be
    in params.yaml: then --study makes sure that it is.
    """
    name = study if isinstance(study, str) else study.study
    file = Path("studies", f"{name}.yaml")
    there = file.is_file() and (isinstance(study, str) or _read(file, file.stat().st_mtime_ns) == study)
    return f"trained-binarization {stage} " + (f"--params {file.as_posix()}" if there else f"--study {name}")


@lru_cache(maxsize=8)
def _read(path: Path, changed: int) -> Study | None:
    """The study in a file that was last changed at that time; None where something is wrong in it."""
    try:
        return load_study(path)
    except UserError:
        return None


def load_study(path: Path) -> Study:
    """The study in a params file; UserError with one line for the first thing that is wrong in it."""
    return load(path, Study)

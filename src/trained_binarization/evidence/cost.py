"""What the ImageNet studies cost: hours from measured images a second, generated into docs/imagenet.md."""

import statistics
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from trained_binarization import records
from trained_binarization.evidence.claims import load_claims
from trained_binarization.evidence.markdown import escape
from trained_binarization.evidence.measured import ImageNet, Training
from trained_binarization.evidence.report import replace_between
from trained_binarization.evidence.tables import Cell, Table
from trained_binarization.files import read_model
from trained_binarization.study import FULL_PRECISION, METHOD, ImageFolder, Study, load_study

IMAGES = 1_281_167
"""ImageNet's training images: an epoch."""


def _read(results: Path, name: str, schema: type[BaseModel]) -> dict[str, Any]:
    remedy = f"measure it anew with: trained-binarization benchmark {name.split('-')[0]}"
    return read_model(results / "benchmarks" / name, schema, remedy).model_dump()


def _gpu_speed(
    result: dict[str, Any], of_gpu: dict[str, Any] | None, results: Path
) -> tuple[dict[tuple[str, str], float], str]:
    """(images a second on one GPU by network and training, how they are known)."""
    if of_gpu:
        speeds = {(row["network"], row["training"]): row["images_per_second"]["median"] for row in of_gpu["training"]}
        return speeds, f"measured on {escape(of_gpu['device'])}"
    # No GPU has run these networks: as many times the CPU's speed as VGG-Small's training on a GPU was.
    on_cpu = _read(results, "training-cpu.json", Training)
    small = {row["training"]: row["images_per_second"]["engine"]["median"] for row in on_cpu["trainings"]}
    study = load_study(Path("studies/cifar10.yaml"))
    factors, devices = {}, set()
    for variant, seeds in ((FULL_PRECISION, study.seeds.pretrain), (METHOD, study.seeds.finetune)):
        done = [records.record_of(results, study, study.find("vgg_small", variant, seed)) for seed in seeds]
        factors[variant] = statistics.median(record.images_per_second for record in done) / small[variant]
        devices |= {record.device for record in done}
    speeds = {
        (row["network"], row["training"]): row["images_per_second"]["median"] * factors[row["training"]]
        for row in result["training"]
    }
    said = " and ".join(f"{factor:.0f} times ({name.replace('_', ' ')})" for name, factor in factors.items())
    return speeds, (
        f"**estimated**: {said} this CPU's, as many times as VGG-Small on CIFAR-10 trains faster on one "
        f"{escape(', '.join(sorted(devices)))} (the records of `cifar10`) than here (`training-cpu.json`); "
        "not run on a GPU, and too high where these networks are bound by memory there"
    )


def cost(study: Study, results: Path) -> str:
    """The loader's measurement and the study's hours, as Markdown; from results/benchmarks and the records."""
    assert isinstance(study.dataset, ImageFolder)
    result = _read(results, "imagenet-cpu.json", ImageNet)
    gpu = "imagenet-cuda.json"
    of_gpu = _read(results, gpu, ImageNet) if (results / "benchmarks" / gpu).exists() else None
    title = load_claims(Path("claims.yaml")).title
    loading, workers = (of_gpu or result)["loading"], study.dataset.workers
    speeds, ratios = loading["images_per_second"], loading["times_stock"]
    stock, ours = speeds["stock"], speeds["ours"]
    by_dali = "NVIDIA DALI: not run, not installed there."
    if "dali" in speeds:
        where = "on that GPU" if of_gpu else "on the same cores"
        by_dali = f"NVIDIA DALI {where} (`dataset.decoder: dali`): {_span(speeds['dali'])},"
        by_dali += f"\n{_times(ratios['dali'])} as many as torchvision's."
    loader = ours["median"] / loading["workers"] * workers
    gpu_speeds, how = _gpu_speed(result, of_gpu, results)
    rows, total = [], [0.0, 0.0, 0.0]
    for row in result["training"]:
        pretrain = row["training"] == FULL_PRECISION
        epochs = (study.pretrain if pretrain else study.finetune).epochs
        seeds = len(study.seeds.pretrain if pretrain else study.seeds.finetune)
        on_cpu, on_gpu = row["images_per_second"], gpu_speeds[row["network"], row["training"]]
        one = epochs * IMAGES / 3600 / min(on_gpu, loader)
        hours = [epochs * IMAGES / 3600 / on_cpu["median"], one, one / 8]
        total = [before + seeds * more for before, more in zip(total, hours, strict=True)]
        cells = [title(row["network"]), row["training"].replace("_", " "), str(epochs), str(seeds), _span(on_cpu)]
        cells += [f"{hours[0]:,.0f}", f"{on_gpu:,.0f}", f"{hours[1]:,.1f}", f"{hours[2]:,.1f}"]
        rows.append([Cell(cell, style="number" if i > 1 else "") for i, cell in enumerate(cells)])
    last = ["all seeds", "", "", "", "", f"{total[0]:,.0f}", "", f"{total[1]:,.1f}", f"{total[2]:,.1f}"]
    rows.append([Cell(cell) for cell in last])
    headings = ["network", "training", "epochs", "seeds", "images/s here", "hours", "images/s, one GPU", "hours"]
    table = Table("cost", "", [*headings, "hours, eight GPUs"], rows=[], cells=rows)
    machine = f"{escape(result['device'])}, {result['threads']} threads, commit {result['commit'][:7]}"
    size_of_files = f"{loading['bytes_an_image'] / 1e3:.0f} kB"
    return f"""Measured on {machine}: medians (least to most).

Loading with {loading["workers"]} processes, to {loading["size"]} pixels a side, from files of {size_of_files}
on the mean: {_span(ours)} images/s. torchvision's ImageFolder and transforms in a DataLoader, in the same run, in turn:
{_span(stock)}. That is {_times(ratios["ours"])} as many.
{by_dali}

Hours of one seed, and of all:

{table.markdown()}
All seeds cost {total[1]:,.0f} GPU-hours, on one GPU as on eight. Assumptions:

- One GPU's images/s: {how}.
- {workers} loading processes for each GPU, each as fast as one of those, on files as large as those:
  {loader:,.0f} images/s. Where that is less than what the GPU trains, the hours are the loader's. ImageNet's
  own files are larger and slower to decode; `copy_side` makes them small.
- Eight GPUs are eight times as fast as one: a lower bound. Evaluation and compilation are not counted.
"""


def _span(spread: dict[str, float]) -> str:
    return f"{spread['median']:,.0f} ({spread['least']:,.0f} to {spread['most']:,.0f})"


def _times(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} times ({spread['least']:.2f} to {spread['most']:.2f})"


def write_cost(study: Study, results: Path, document: Path) -> str:
    """Put the cost between the document's markers; a line that says so."""
    text = cost(study, results)
    return f"{document}: cost written" if replace_between(document, "cost", text) else text

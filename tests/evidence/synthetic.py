"""Synthetic results folders: records with true fingerprints and plausible histories, made up from seeds."""

import hashlib
import math
import random
from pathlib import Path

from trained_binarization import files, records
from trained_binarization.study import FULL_PRECISION, METHOD, Run, Study, load_study

ROOT = Path(__file__).resolve().parents[2]
CLAIMS = ROOT / "claims.yaml"
LAYERS = ["conv2", "conv3", "conv4", "conv5", "conv6"]
CHECKSUM = "c" * 64

GAPS = {  # points below the method
    FULL_PRECISION: -1.6,
    METHOD: 0.0,
    "clipped_ste": 0.9,
    "from_scratch": 2.1,
    "signed_activations": -0.2,
}


def _noise(*key: object) -> random.Random:
    return random.Random(hashlib.sha256(repr(key).encode()).hexdigest())


def _layers(width: float) -> list[dict[str, object]]:
    channels = [3, 128, 128, 256, 256, 512, 512]
    rows: list[dict[str, object]] = []
    for i in range(1, 7):
        c_in = 3 if i == 1 else int(channels[i - 1] * width)
        c_out, side = int(channels[i] * width), 32 // 2 ** ((i - 1) // 2)
        parameters, binary = 9 * c_in * c_out, i > 1
        rows.append(
            {
                "layer": f"conv{i}",
                "type": "BinaryConv2d" if binary else "Conv2d",
                "output_shape": f"{c_out}x{side}x{side}",
                "parameters": parameters,
                "binary_parameters": parameters * binary,
                "macs": parameters * side * side,
                "binary_macs": parameters * side * side * binary,
                "bytes_float": 4 * parameters,
                "bytes_one_bit": parameters // 8 if binary else 4 * parameters,
            }
        )
    total: dict[str, object] = {"layer": "total", "type": "", "output_shape": ""}
    for key in list(rows[0])[3:]:
        total[key] = sum(int(str(row[key])) for row in rows)
    return [*rows, total]


def write_run(study: Study, run: Run, results: Path, accuracy: float | None = None) -> None:
    """A finished run's record and history; its last accuracy (percent) made up unless given."""
    top = 92.4 if study.dataset.name == "cifar10" else 97.5
    noise = _noise(study.study, str(run))
    if accuracy is None:
        shared = _noise(run.seed).gauss(0, 0.1)
        accuracy = round(top - GAPS.get(run.variant, 0.02) + shared + noise.gauss(0, 0.08), 2)
    epochs = study.training(run).epochs
    binary = run.variant != FULL_PRECISION
    columns = ["epoch", "learning_rate", "train_loss", "train_accuracy", "evaluation_loss", "evaluation_accuracy"]
    if binary:
        for layer in LAYERS:
            kinds = ["alpha_weight", "alpha_activation"] if run.variant != "no_scaling" else []
            columns += [f"{kind}.{layer}" for kind in [*kinds, "latent_beyond_0.4", "latent_beyond_1", "flipped"]]
    lines, seen = [",".join(columns)], []
    for epoch in range(1, epochs + 1):
        t = epoch / epochs
        reached = accuracy - (accuracy - 12) * math.exp(-9 * t) - (1 - t) * abs(noise.gauss(0, 1.5))
        evaluated = epoch % study.training(run).evaluate_every == 0 or epoch == epochs
        reached = accuracy if epoch == epochs else reached
        loss = float(f"{2.3 * math.exp(-3 * t):.6g}")
        if evaluated:
            seen.append((epoch, float(f"{reached:.8g}"), loss))
        values: list[str] = [str(epoch), f"{0.05 * (1 - t):.6g}", f"{2.2 * math.exp(-5 * t):.6g}"]
        values += [f"{min(99.9, reached + 2 * t):.6g}"]
        values += [f"{loss:.6g}", f"{reached:.8g}"] if evaluated else ["", ""]
        for column in columns[6:]:
            kind, layer = column.rsplit(".", 1)
            start = 0.4 if kind == "alpha_weight" else 0.8
            depth = LAYERS.index(layer) + 1
            values.append(f"{start * math.exp(-0.1 * depth * t) + 0.004 * noise.random():.6g}")
        lines.append(",".join(values))
    folder = records.run_folder(results, study, run)
    files.write_text(folder / "history.csv", "\n".join(lines) + "\n")
    best = max(seen, key=lambda one: one[1])
    parent = study.parent(run)
    width = study.architecture[run.network].width
    record = records.Record(
        study=study.study,
        network=run.network,
        variant=run.variant,
        seed=run.seed,
        stand_in=study.stand_in,
        fingerprint=records.fingerprint(study, run, CHECKSUM),
        method_version=records.METHOD_VERSION,
        settings=records.settings_of(study, run),
        compute=study.compute.model_dump(),
        data_checksum=CHECKSUM,
        parent=records.Parent(
            run=str(parent),
            fingerprint=records.fingerprint(study, parent, CHECKSUM),
            weights_sha256=hashlib.sha256(str(parent).encode()).hexdigest(),
        )
        if parent
        else None,
        scored="validation" if study.dataset.validation else "test",
        images_scored=10000,
        images_trained_on=50000,
        epochs=epochs,
        last=records.Evaluation(epoch=epochs, loss=seen[-1][2], accuracy=accuracy),
        best=records.Evaluation(epoch=best[0], loss=best[2], accuracy=best[1]),
        alphas_at_floor=0,
        weights_sha256=hashlib.sha256(str(run).encode()).hexdigest(),
        history_sha256=files.sha256(folder / "history.csv"),
        layers=_layers(width),
        wall_seconds=1234.5 + run.seed,
        images_per_second=2345.6,
        interruptions=0,
        commit="0123456789abcdef0123456789abcdef01234567",
        clean=True,
        packages={"torch": "2.9.0", "numpy": "2.3.0"},
        python="3.11.9",
        device="a made-up CPU",
        driver=None,
        threads=1,
    )
    files.write_json(folder / "record.json", record.model_dump())


def write_data(study: Study, results: Path) -> None:
    """The study's data.json."""
    data = records.Data(
        dataset=study.dataset.name,
        checksum=CHECKSUM,
        train_images=50000,
        test_images=10000,
        files={"made.up": "0" * 32},
    )
    files.write_json(records.data_path(results, study), data.model_dump())


def write_results(study: Study, results: Path) -> None:
    """Every run of a study, and its data.json."""
    write_data(study, results)
    for run in study.runs():
        write_run(study, run, results)


def quick_study() -> Study:
    """The committed quick study."""
    return load_study(ROOT / "studies" / "quick.yaml")


def small_study() -> Study:
    """The quick study under a name whose results enter the replication's report."""
    return quick_study().model_copy(update={"study": "small"})


def cifar10_study() -> Study:
    """A made-up full CIFAR-10 study: the paper's own setting, five seeds."""
    content = quick_study().model_dump()
    content["study"], content["title"], content["stand_in"] = "cifar10", "VGG-Small on CIFAR-10", None
    content["dataset"] |= {"name": "cifar10", "padding": 4, "flip": True}
    content["architecture"]["vgg_small"]["width"] = 1.0
    content["seeds"] = {key: [0, 1, 2, 3, 4] for key in content["seeds"]}
    content["pretrain"]["epochs"] = content["finetune"]["epochs"] = 60
    content["finetune"]["evaluate_every"] = 2
    content["ablations"] = [*content["ablations"], "polynomial", "clipped_half", "not_rescaled", "per_channel"]
    content["variants"] |= {
        "polynomial": {"activation_estimator": "polynomial", "weight_estimator": "polynomial"},
        "clipped_half": {"activation_estimator": "clipped_ste_half", "weight_estimator": "clipped_ste_half"},
        "not_rescaled": {"latent_std": None},
        "per_channel": {"weight_scaling_granularity": "channel"},
    }
    return Study.model_validate(content)

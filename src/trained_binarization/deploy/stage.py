"""The stage `deploy`: the method's first seed exported, proven, and described; and `export` for any run."""

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trained_binarization.errors import NotRun, UserError, require
from trained_binarization.evidence.measured import Deployed
from trained_binarization.files import read_model, refresh, sha256, write_json, write_text, written_whole
from trained_binarization.records import WEIGHTS, record_of, run_folder, status
from trained_binarization.study import METHOD, ImageFolder, Run, Study, command

TOLERANCE = 0.2
"""Points between a record's accuracy and that from its weights here: another processor moves a few images."""

LICENCES = {
    "cifar10": "CIFAR-10 (Krizhevsky 2009): published for research without a licence text; cite its technical report",
    "imagenet": "ImageNet (ILSVRC2012): for non-commercial research and education, by its terms of access",
    "imagenette": "Imagenette (fast.ai): ten classes of ImageNet, whose terms hold for the images",
    "digits": "Optical recognition of handwritten digits (Alpaydin & Kaynak 1998, UCI): CC BY 4.0",
}


def export(study: Study, run: Run, results: Path, path: Path) -> dict[str, Any]:
    """Write a finished binary run as PATH.xml and PATH.bin; returns the image size, and SHA-256 and bytes by name."""
    require("openvino")
    from trained_binarization.datasets import open_dataset
    from trained_binarization.deploy.export import export_network
    from trained_binarization.deploy.model import About, save_model
    from trained_binarization.training.runs import kept_network
    from trained_binarization.training.weights import SIGNS

    if study.variant(run.variant) is None:
        raise UserError(f"export: variant: found '{run.variant}'; allowed: a binary one")
    record = record_of(results, study, run)
    folder = run_folder(results, study, run)
    if not any((folder / name).exists() for name in (WEIGHTS, SIGNS)):
        raise NotRun(f"{folder}: found neither {WEIGHTS} nor {SIGNS}; make them with: {study.command(run)} --again")
    data = open_dataset(study.dataset, run.network)
    network = kept_network(study, run, results, data).eval()
    model = export_network(network, *data.statistics(study.dataset.validation), data.size)
    about = About(
        study=study.study,
        run=str(run),
        classes=data.classes,
        image_size=data.size,
        data_checksum=record.data_checksum,
        weights_sha256=record.weights_sha256,
        accuracy=record.last.accuracy,
        resize=study.dataset.resize if isinstance(study.dataset, ImageFolder) else 0,
    )
    files = save_model(model, about, path)
    sizes = {name: path.with_name(name).stat().st_size for name in files}
    return {"image_size": data.size, "files": files, "bytes": sizes}


def without_model(results: Path, study: Study) -> list[str]:
    """The networks whose deploy.json names a model's file that is not there."""
    found: list[str] = []
    for network in study.networks:
        folder = results / study.study / "deploy" / network
        said = _read_deployed(folder, study)
        if said and not all((folder / name).exists() for name in said.files):
            found.append(network)
    return found


def _read_deployed(folder: Path, study: Study) -> Deployed | None:
    """What deploy.json says; None where there is none; UserError where it is damaged."""
    path = folder / "deploy.json"
    remedy = f"make it anew with: {command('deploy', study)} --network {folder.name} --again"
    return read_model(path, Deployed, remedy) if path.exists() else None


def deploy(study: Study, network: str, results: Path, *, again: bool = False) -> str:
    """Export the method's first seed, prove it equal, and write deploy.json and card.md; a line on what came of it.

    A model that is there, whole, and of the run's record is left alone. Where none can be made here (no openvino, no
    weights), a proof of this record is kept; without one, the reason is written in its place. UserError where the
    proof fails: then nothing that was there is changed.
    """
    run = study.find(network, METHOD, study.seeds.finetune[0])
    record = record_of(results, study, run)
    folder = results / study.study / "deploy" / network
    path = folder / "deploy.json"
    try:
        before = _read_deployed(folder, study)
    except UserError:
        if not again:
            raise
        before = None
    if before and (before.status != "exported" or before.weights_sha256 != record.weights_sha256):
        before = None  # no proof, or another record's
    if before and not again and _whole(folder, before):
        refresh(path)
        write_text(folder / "card.md", _card(study, run, results, before))  # other seeds may have come since
        return f"{path}: already there, nothing exported"
    found: dict[str, Any] = {"run": str(run), "weights_sha256": record.weights_sha256}
    with TemporaryDirectory() as made:
        try:
            found |= {"status": "exported"} | export(study, run, results, Path(made, network))
        except NotRun as reason:
            if before:
                refresh(path)
                write_text(folder / "card.md", _card(study, run, results, before))
                model = "its model is there" if _whole(folder, before) else "its model is missing or damaged"
                return f"{path}: kept, a proof of this record ({model}); nothing exported: {reason}"
            found["status"] = f"not run: {reason}"
        else:
            found |= _proven(study, run, results, Path(made, f"{network}.xml"))
            for name in found["files"]:
                with written_whole(folder / name) as partial:
                    partial.write_bytes(Path(made, name).read_bytes())
    write_json(path, found)
    write_text(folder / "card.md", _card(study, run, results, Deployed.model_validate(found)))
    return f"{path}: {found['status']}"


def _whole(folder: Path, said: Deployed) -> bool:
    """Whether the model's files are those that were proven."""
    return all((folder / name).is_file() and sha256(folder / name) == own for name, own in said.files.items())


def _proven(study: Study, run: Run, results: Path, path: Path) -> dict[str, Any]:
    import openvino
    import torch

    from trained_binarization.datasets import open_dataset, pixels
    from trained_binarization.deploy.model import read_model
    from trained_binarization.deploy.proof import compare
    from trained_binarization.training.device import set_up
    from trained_binarization.training.runs import kept_network

    compute = study.compute.model_copy(update={"device": "cpu"})
    set_up(compute)
    data = open_dataset(study.dataset, run.network)
    images, labels = pixels(data.scored(study.dataset.validation, torch.device("cpu")))
    network = kept_network(study, run, results, data).eval()
    mean, std = data.statistics(study.dataset.validation)
    proof = compare(network, read_model(path), images, labels, mean, std, compute.threads)
    if faults := proof.faults():
        raise UserError(f"{path}: found a model that computes something else: {'; '.join(faults)}; allowed: no faults")
    recorded, here = record_of(results, study, run).last.accuracy, proof.accuracy_framework
    if abs(here - recorded) > TOLERANCE:
        raise UserError(
            f"{run_folder(results, study, run)}: accuracy from the kept weights: found {here:.2f} %; "
            f"allowed: {recorded:.2f} %, the record's, within {TOLERANCE:g} points; nothing is exported"
        )
    return {"openvino": openvino.__version__.split("-")[0], "proof": asdict(proof)}


def _card(study: Study, run: Run, results: Path, found: Deployed) -> str:
    """The model card, from the records."""
    from trained_binarization.evidence.markdown import code, escape
    from trained_binarization.evidence.statistics import t_interval

    title = f"# Model card: {run.network}, 1 bit, {study.study}\n"
    if found.proof is None:
        return f"{title}\n{escape(found.status)}\n"
    record, proof = record_of(results, study, run), found.proof
    seeds = [study.find(run.network, METHOD, seed) for seed in study.seeds.finetune]
    done = [status(results, study, one, record.data_checksum) for one in seeds]
    accuracies = [one.record.last.accuracy for one in done if one.record]
    spread = f"one seed of {len(seeds)}"
    if len(accuracies) > 1:
        interval = t_interval(accuracies, 0.95)
        spread = (
            f"mean of {interval.n} seeds {interval.mean:.2f} %, 95 % interval {interval.low:.2f} to {interval.high:.2f}"
        )
    files = "\n".join(
        f"- {code(name)}: {found.bytes[name]:,} bytes, SHA-256 {code(sha)}" for name, sha in found.files.items()
    )
    sums, size = sum(layer.sums for layer in proof.layers), found.image_size
    facts = {
        "Network": f"{run.network}, width {study.architecture[run.network].width:g}; weights and activations of one "
        "bit, but for the first convolution and the classifier (float32)",
        "Method": "Xu & Cheung, BMVC 2019, as reconstructed in this repository",
        "Study": f"`{study.study}`: {escape(study.title)}",
        "Stands in with": escape(study.stand_in or "nothing: the paper's own setting"),
        "Data": f"{study.dataset.name}, checksum `{record.data_checksum[:16]}`",
        "Licence of the data": LICENCES[study.dataset.name],
        "Accuracy": f"{proof.accuracy_exported:.2f} % on {proof.images:,} {record.scored} images, all of them; "
        f"the framework's network {proof.accuracy_framework:.2f} %, its record {record.last.accuracy:.2f} %; "
        f"{spread}",
        "Record": f"{code(f'{run_folder(results, study, run).as_posix()}/record.json')}, "
        f"commit {code(record.commit[:12])}",
        "Proof": f"{sums:,} sums of {len(proof.layers)} binary convolutions compared, none differs; "
        f"{len(proof.differences)} of {proof.images:,} predictions differ"
        + (", each traced to a value within rounding of zero" if proof.differences else ""),
        "Input": f"`images`, uint8 (1, {size}, {size}, 3), RGB, 0 to 255; to be reshaped for more images at once",
        "Output": "`logits`, float32 (1, classes)",
        "Use": "`trained-binarization predict MODEL.xml IMAGE...`, or OpenVINO's runtime on a CPU",
        "Limits": "trained to tell these classes apart and nothing else; how far its confidence can be trusted was not "
        "tested",
    }
    return "\n".join([title, *(f"- **{fact}**: {text}." for fact, text in facts.items()), "", files]) + "\n"

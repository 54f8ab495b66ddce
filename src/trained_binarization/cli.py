"""The command line: one command a stage, and the few that a person wants."""

import re
import sys
import time
from math import isfinite
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from trained_binarization.errors import Diverged, UserError, one_line, require
from trained_binarization.files import write_json, write_text
from trained_binarization.machine import ensure_home, usable_cpus
from trained_binarization.progress import progress
from trained_binarization.records import Record, finished, lacks_weights, outlived
from trained_binarization.settings import validate
from trained_binarization.study import FULL_PRECISION, LOCAL, METHOD, ImageFolder, Run, Study, command, load_study

STARTED = time.monotonic()

# Stages import what they need when they are called: `verify` and `report` need no torch, training no plotting.

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)

measure = typer.Typer(no_args_is_help=True, help="Measure how fast this machine is.")
app.add_typer(measure, name="benchmark")


def _finite(value: float | None) -> float | None:
    if value is not None and not isfinite(value):
        raise typer.BadParameter(f"found {value}; allowed: a finite number")
    return value


Params = Annotated[Path, typer.Option(help="The study file.")]
Expected = Annotated[str | None, typer.Option("--study", help="The study that the file must hold: no other is meant.")]
Results = Annotated[Path, typer.Option(help="The folder of all studies' results.")]
Network = Annotated[str, typer.Option(help="One of the study's networks.")]
SeedNumber = Annotated[int, typer.Option(help="One of the study's seeds.")]
Variant = Annotated[str, typer.Option(help="One of the study's variants.")]
Again = Annotated[bool, typer.Option("--again", help="Train even where the record is complete, and replace it.")]

Reference = Annotated[Path, typer.Option(help="The folder of reference evidence, STUDY.json each.")]

PARAMS, RESULTS, REFERENCE = Path("params.yaml"), Path("results"), Path("reference")


def _load(params: Path, expected: str | None) -> Study:
    """The study in the file. The engines say which they planned for: another may have been selected since."""
    study = load_study(params)
    if expected is not None and study.study != expected:
        raise UserError(f"{params}: study: found '{study.study}'; allowed: '{expected}', as --study says")
    return study


def _train(study: Study, results: Path, network: str, variant: str, seed: int, again: bool) -> None:
    run = study.find(network, variant, seed)
    record = None if again else finished(results, study, run)
    if record:
        typer.echo(_outcome(run, record, False, progress(results, study)))
        return

    from trained_binarization.training.distributed import join
    from trained_binarization.training.loop import Interrupted
    from trained_binarization.training.runs import train_run

    try:
        with join(study) as world:
            # Weights are not in git. In a clone, a finished parent is trained once more for a child that needs them.
            if (parent := study.parent(run)) and lacks_weights(results, study, parent):
                typer.echo(f"{run}: the weights of {parent} are not here; it is trained once more")
                train_run(study, parent, results, again=True, world=world)
            record, trained = train_run(study, run, results, again=again, world=world)
    except Interrupted as interruption:
        typer.echo(f"{run}: stopped by a signal, nothing lost; the same command goes on", err=True)
        raise typer.Exit(128 + (interruption.signal_number or 0)) from None
    overhead = max(0.0, time.monotonic() - STARTED - record.wall_seconds) if trained else 0.0
    typer.echo(_outcome(run, record, trained, progress(results, study, overhead)))


def _outcome(run: Run, record: Record, trained: bool, done: str) -> str:
    how = "trained" if trained else "already there, nothing trained"
    return f"{run}: {record.last.accuracy:.2f} % on the {record.scored} images ({how}); {done}"


@app.command()
def prepare(
    study: Expected = None,
    params: Params = PARAMS,
    results: Results = RESULTS,
    again: Annotated[bool, typer.Option("--again", help="Read every image, also where nothing has changed.")] = False,
) -> None:
    """Validate the whole study, verify the data set's checksums, write results/STUDY/data.json."""
    from trained_binarization.datasets.prepare import prepare as prepare_dataset

    typer.echo(prepare_dataset(_load(params, study), results, again))


@app.command()
def pretrain(
    network: Network,
    seed: SeedNumber,
    study: Expected = None,
    params: Params = PARAMS,
    results: Results = RESULTS,
    again: Again = False,
) -> None:
    """Train a network in full precision."""
    _train(_load(params, study), results, network, FULL_PRECISION, seed, again)


@app.command()
def finetune(
    network: Network,
    seed: SeedNumber,
    study: Expected = None,
    params: Params = PARAMS,
    results: Results = RESULTS,
    again: Again = False,
) -> None:
    """Train the binary network by the method, from the full-precision weights of the same seed."""
    _train(_load(params, study), results, network, METHOD, seed, again)


@app.command()
def ablate(
    network: Network,
    variant: Variant,
    seed: SeedNumber,
    study: Expected = None,
    params: Params = PARAMS,
    results: Results = RESULTS,
    again: Again = False,
) -> None:
    """Train a variant of the method, else exactly as `finetune`."""
    _train(_load(params, study), results, network, variant, seed, again)


@app.command()
def run(
    params: Params = PARAMS,
    results: Results = RESULTS,
    time_limit: Annotated[
        float | None, typer.Option(min=0, callback=_finite, help="Seconds after which to stop, with everything saved.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Only these seeds, block by block: 0,2,4 for example.")] = None,
) -> None:
    """Work through the study's runs in order of worth, without a workflow engine; called again it goes on.

    With --seeds it trains block by block: a seed's parent, method and ablations, then the next seed. Processes with
    different seeds may run side by side. Where a run diverges, the runs that do not start from it still go on; then
    the exit status is 1.
    """
    from trained_binarization.datasets.prepare import prepare as prepare_dataset
    from trained_binarization.training.distributed import join
    from trained_binarization.training.loop import Interrupted
    from trained_binarization.training.runs import train_run

    deadline = None if time_limit is None else time.monotonic() + time_limit
    study = load_study(params)
    with join(study) as world:
        typer.echo(world.from_first(None if world.rank else prepare_dataset(study, results)))
        runs = list(study.runs() if seeds is None else study.blocks(_seeds(seeds, study)))
        diverged: list[Run] = []
        for number, one in enumerate(runs):
            if study.parent(one) in diverged:
                diverged.append(one)
                continue
            try:
                if world.agree(deadline is not None and time.monotonic() > deadline):
                    raise Interrupted(None)
                again = seeds is not None and outlived(results, study, one)
                record, trained = train_run(study, one, results, again=again, deadline=deadline, world=world)
            except Interrupted as interruption:
                left = len(runs) - number
                typer.echo(
                    f"{study.study}: stopped, nothing lost; {left} of {len(runs)} runs left, {one} first; call again"
                )
                raise typer.Exit(128 + interruption.signal_number if interruption.signal_number else 0) from None
            except Diverged as error:
                typer.echo(f"error: {error}", err=True)
                diverged.append(one)
                continue
            typer.echo(_outcome(one, record, trained, progress(results, study)))
        if diverged:
            names = ", ".join(map(str, diverged))
            raise Diverged(f"{study.study}: {len(diverged)} of {len(runs)} runs diverged, or start from one: {names}")
        typer.echo(f"{study.study}: all {len(runs)} runs done")


def _seeds(text: str, study: Study) -> list[int]:
    allowed = study.seeds.pretrain
    chosen = [int(part) if part.strip().isdecimal() else part for part in text.split(",")]
    if wrong := [seed for seed in chosen if seed not in allowed]:
        raise UserError(f"--seeds: found {wrong[0]!r}; the study's seeds are {', '.join(map(str, allowed))}")
    return [int(seed) for seed in chosen]


@app.command()
def keep(
    network: Network,
    seed: SeedNumber,
    variant: Variant = METHOD,
    params: Params = PARAMS,
    results: Results = RESULTS,
) -> None:
    """Keep a binary run's network as signs and scaling factors, small enough for git."""
    from trained_binarization.training.runs import keep_signs

    study = load_study(params)
    typer.echo(f"{keep_signs(study, study.find(network, variant, seed), results)}: written")


Model = Annotated[Path, typer.Argument(help="An exported model, MODEL.xml.")]


@app.command()
def evaluate(
    model: Annotated[Path | None, typer.Argument(help="An exported model, MODEL.xml, in place of a run.")] = None,
    network: Annotated[str | None, typer.Option(help="One of the study's networks.")] = None,
    seed: Annotated[int | None, typer.Option(help="One of the study's seeds.")] = None,
    variant: Variant = METHOD,
    params: Params = PARAMS,
    results: Results = RESULTS,
) -> None:
    """Score a run's kept weights, or an exported model, again. Exit status 1 where its record says otherwise.

    Otherwise is a difference of more than 0.05 points: a value next to zero can fall on the other side where sums are
    rounded differently.
    """
    study = load_study(params)
    if model is not None:
        require("openvino")
        from trained_binarization.deploy.use import evaluate_model

        accuracy, recorded, images, scored = evaluate_model(model, study)
    elif network is None or seed is None:
        raise UserError("evaluate: found no run and no model; allowed: --network and --seed, or MODEL.xml")
    else:
        from trained_binarization.training.runs import evaluate_run

        accuracy, record = evaluate_run(study, study.find(network, variant, seed), results)
        recorded, images, scored = record.last.accuracy, record.images_scored, record.scored
    agrees = abs(accuracy - recorded) <= 0.05
    typer.echo(
        f"{accuracy:.2f} % on the {images} {scored} images; "
        f"the record says {recorded:.2f} %: {'agrees' if agrees else 'does not agree'}"
    )
    raise typer.Exit(0 if agrees else 1)


@app.command()
def deploy(
    network: Network,
    study: Expected = None,
    params: Params = PARAMS,
    results: Results = RESULTS,
    again: Again = False,
) -> None:
    """Export the method's first seed with one bit a weight, prove that it computes the same, write its card."""
    from trained_binarization.deploy.stage import deploy as deploy_network

    typer.echo(deploy_network(_load(params, study), network, results, again=again))


@app.command()
def export(
    network: Network,
    seed: SeedNumber,
    to: Annotated[Path, typer.Option(help="Where to write: TO.xml and TO.bin.")],
    variant: Variant = METHOD,
    params: Params = PARAMS,
    results: Results = RESULTS,
) -> None:
    """Write a binary run as an OpenVINO model with one bit a weight."""
    from trained_binarization.deploy.stage import export as export_run

    to = to.with_suffix("") if to.suffix == ".xml" else to
    study = load_study(params)
    made = export_run(study, study.find(network, variant, seed), results, to)
    for name, sha in made["files"].items():
        typer.echo(f"{to.with_name(name)}: {made['bytes'][name]:,} bytes, SHA-256 {sha}")


@app.command()
def predict(model: Model, images: Annotated[list[Path], typer.Argument(help="Image files, of any size.")]) -> None:
    """Classify image files with an exported model: label, confidence, milliseconds."""
    require("openvino")
    from trained_binarization.deploy.use import classify

    for image, label, confidence, milliseconds in classify(model, images):
        typer.echo(f"{one_line(str(image))}: {label}, {100 * confidence:.1f} %, {milliseconds:.2f} ms")


@measure.command("training")
def benchmark_training(
    params: Params = Path("studies/cifar10.yaml"),
    results: Results = RESULTS,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Threads; by default the machine's.")] = None,
    images: Annotated[int, typer.Option(min=1, max=10_000_000, help="Images a round; on a GPU an epoch's.")] = 1280,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Rounds of each way, in turn.")] = 5,
) -> None:
    """Compare this engine with the stock way of training; writes results/benchmarks/training-DEVICE.{json,md}."""
    from trained_binarization.training.benchmark import benchmark_training as measure_training
    from trained_binarization.training.benchmark import table

    study = load_study(params)
    compute = study.compute.model_copy(update={"threads": threads or usable_cpus()})
    result = measure_training(study.model_copy(update={"compute": compute}), images, rounds, typer.echo)
    path = results / "benchmarks" / f"training-{'cuda' if result['driver'] else 'cpu'}"
    write_json(path.with_suffix(".json"), result)
    write_text(path.with_suffix(".md"), table(result))
    typer.echo(f"\n{table(result)}\n{path}.json and .md: written")


@measure.command("inference")
def benchmark_inference(
    network: Network = "vgg_small",
    params: Params = Path("studies/cifar10.yaml"),
    results: Results = RESULTS,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Rounds of every engine, in turn.")] = 10,
) -> None:
    """Compare the exported model with float and int8 engines; writes results/benchmarks/inference.*."""
    require("openvino", "onnxruntime", "onnxscript", "nncf")
    from trained_binarization.deploy.benchmark import benchmark_inference as measure_inference
    from trained_binarization.evidence.figures import draw_one, inference
    from trained_binarization.evidence.tables import inference_table

    threads = sorted({1, usable_cpus()})
    result = measure_inference(load_study(params), network, results, threads, rounds, typer.echo)
    folder = results / "benchmarks"
    write_json(folder / "inference.json", result)
    draw_one(lambda: inference(result), folder, "inference")
    typer.echo(f"\n{inference_table(result).markdown()}\n{folder / 'inference.json'}: written, and its figure")


@measure.command("imagenet")
def benchmark_imagenet(
    root: Annotated[Path, typer.Option(help="A folder of images, {train,val}/CLASS/FILE.JPEG, to load from.")],
    params: Params = Path("studies/imagenet.yaml"),
    results: Results = RESULTS,
    images: Annotated[int, typer.Option(min=1, max=10_000_000, help="Images loaded a round.")] = 4096,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Rounds of each way of loading, in turn.")] = 5,
) -> None:
    """Measure loading and training at ImageNet's sizes; writes results/benchmarks/imagenet-DEVICE.json and the cost."""
    from trained_binarization.evidence.cost import write_cost
    from trained_binarization.training.imagenet_benchmark import benchmark_imagenet as measure_imagenet

    study = load_study(params)
    compute = study.compute.model_copy(update={"threads": usable_cpus()})
    result = measure_imagenet(study.model_copy(update={"compute": compute}), root, images, rounds, typer.echo)
    path = results / "benchmarks" / f"imagenet-{'cuda' if result['driver'] else 'cpu'}.json"
    write_json(path, result)
    typer.echo(f"{path}: written; {write_cost(study, results, Path('docs/imagenet.md'))}")


@measure.command("precision")
def benchmark_precision(
    network: Network,
    params: Params = PARAMS,
    results: Results = RESULTS,
    variant: Variant = METHOD,
) -> None:
    """Compare one batch's gradients with float64, layer by layer; writes results/benchmarks/precision-*.{json,md}."""
    from trained_binarization.benchmarks.precision import measure as measure_precision
    from trained_binarization.benchmarks.precision import table

    result = measure_precision(params, network, variant)
    path = results / "benchmarks" / f"precision-{network}-{variant}"
    write_json(path.with_suffix(".json"), result)
    write_text(path.with_suffix(".md"), table(result))
    typer.echo(f"{table(result)}\n{path}.json and .md: written")


@measure.command("hardware")
def benchmark_hardware(
    sides: Annotated[list[str], typer.Argument(help="NAME=FOLDER: results of the study; the first is compared with.")],
    study: Annotated[str, typer.Option(help="Whose runs.")] = LOCAL,
    results: Results = RESULTS,
) -> None:
    """Compare runs trained with several instruction sets; writes results/benchmarks/hardware.* and the docs' table."""
    from trained_binarization.evidence.hardware import write_hardware
    from trained_binarization.evidence.markdown import escape
    from trained_binarization.evidence.report import replace_between

    named = dict(side.rpartition("=")[::2] for side in sides)
    if "" in named or len(named) < max(2, len(sides)):
        raise UserError(f"benchmark hardware: found {', '.join(sides)}; allowed: two or more NAME=FOLDER, other names")
    made = write_hardware({name: Path(folder) for name, folder in named.items()}, study, results / "benchmarks")
    text = f"{made.markdown()}\n{escape(made.caption)}\n"
    replace_between(Path("docs/reproduction.md"), "hardware", text)
    typer.echo(text, nl=False)


@measure.command("fast-path")
def benchmark_fast_path(params: Params = Path("studies/cifar10-cpu.yaml"), results: Results = RESULTS) -> None:
    """Compare the study's records with those of results/benchmarks/fast-path, trained the plain way."""
    from trained_binarization.evidence.fast_path import table

    folder = results / "benchmarks" / "fast-path"
    text = table(load_study(params), load_study(folder / "params.yaml"), results, folder)
    write_text(folder / "table.md", text)
    typer.echo(text)


@app.command()
def aggregate(
    study: Expected = None,
    params: Params = PARAMS,
    results: Results = RESULTS,
    claims: Path = Path("claims.yaml"),
) -> None:
    """Turn the study's records into tables, figures and verdicts."""
    from trained_binarization.evidence.aggregate import aggregate as aggregate_study

    typer.echo(aggregate_study(_load(params, study), results, claims))


@app.command(hidden=True)
def metrics(study: Expected = None, params: Params = PARAMS, results: Results = RESULTS) -> None:
    """Copy the study's metrics.json to metrics/STUDY.json, which DVC caches: the stage `metrics` of dvc.yaml alone."""
    one = _load(params, study)
    source, path = results / one.study / "metrics.json", Path("metrics", f"{one.study}.json")
    if not source.is_file():
        raise UserError(f"{source}: no such file; make it with: {command('aggregate', one)}")
    write_text(path, source.read_text(encoding="utf-8"))
    typer.echo(f"{path}: written")


@app.command()
def agreement(
    study: Expected = None, params: Params = PARAMS, results: Results = RESULTS, reference: Reference = REFERENCE
) -> None:
    """Compare the study's runs with its reference evidence, if it has one; writes results/STUDY/agreement/."""
    from trained_binarization.evidence.comparison import agree, in_words

    typer.echo(in_words(agree(_load(params, study), results, reference)))


@app.command()
def compare(
    ours: Annotated[Path, typer.Argument(help="A folder of results, one study's folder in it, or reference/.")],
    theirs: Annotated[Path, typer.Argument(help="Another one, to compare it with.")],
    study: Annotated[str | None, typer.Option(help="Whose runs; by default the selected study's.")] = None,
    to: Annotated[Path | None, typer.Option(help="Also write JSON, Markdown and a figure to this folder.")] = None,
) -> None:
    """Compare a study's runs in two folders, or two studies. Exit status 0: agrees, or undecided; 1: differs."""
    from trained_binarization.evidence.comparison import compare as compare_folders
    from trained_binarization.evidence.comparison import markdown

    found = compare_folders(ours, theirs, study, to)
    typer.echo(markdown(found), nl=False)
    raise typer.Exit(1 if found.verdict == "differs" else 0)


@app.command()
def reference(params: Params = PARAMS, results: Results = RESULTS, to: Reference = REFERENCE) -> None:
    """Write a finished study's runs as reference evidence, TO/STUDY.json."""
    from trained_binarization.evidence.agreement import write_reference

    typer.echo(write_reference(to, results, load_study(params)))


@app.command()
def status(study: Expected = None, params: Params = PARAMS, results: Results = RESULTS) -> None:
    """Say what the study's results are, and where to look. Exit status 1: they differ from the reference."""
    from trained_binarization.evidence.status import status_lines

    lines, agrees = status_lines(_load(params, study), results, params)
    typer.echo("\n".join(lines))
    raise typer.Exit(0 if agrees else 1)


@app.command()
def report(
    study: Expected = None,
    params: Params = PARAMS,
    results: Results = RESULTS,
    claims: Path = Path("claims.yaml"),
    replication: Annotated[bool, typer.Option("--replication", help="The report over all studies instead.")] = False,
) -> None:
    """Write the study's report, or with --replication the one over all studies, README's table and the SHA256SUMS."""
    from trained_binarization.evidence.report import report_replication, report_study
    from trained_binarization.evidence.status import status_lines

    if replication:
        typer.echo(report_replication(results, claims))
        return
    one = _load(params, study)
    written = report_study(one, results, claims)
    typer.echo("\n".join([*status_lines(one, results, params)[0], written]))


@app.command()
def verify(results: Results = RESULTS, claims: Path = Path("claims.yaml")) -> None:
    """Print every claim's verdict and how many claims are reached. Exit status 0: some are, and none is contradicted.

    1: one is contradicted. 2: the evidence is not what results/SHA256SUMS lists. 3: nothing could be verified.
    """
    from trained_binarization.evidence.verdicts import verify as verify_claims

    lines, status = verify_claims(results, claims)
    typer.echo("\n".join(lines))
    raise typer.Exit(status)


@app.command()
def select(study: Annotated[str, typer.Argument(help="A name below studies/.")]) -> None:
    """Make a study the selected one: copy studies/STUDY.yaml to params.yaml."""
    source = _study_file(study)
    if PARAMS.exists() and _but_name(PARAMS) not in map(_but_name, Path("studies").glob("*.yaml")):
        raise UserError(
            f"{PARAMS}: found changes that no file below studies/ has; keep them as a study of their own: "
            f"trained-binarization new NAME --from {PARAMS}; or undo them: git checkout -- {PARAMS}"
        )
    write_text(PARAMS, source.read_text(encoding="utf-8"))
    typer.echo(f"{PARAMS}: {study} is selected")


def _but_name(path: Path) -> bytes:
    """A study file without its name: the one line in which a copy that `new` made differs."""
    return re.sub(rb"^study:.*$", b"", path.read_bytes(), count=1, flags=re.MULTILINE)


def _study_file(study: str) -> Path:
    """studies/STUDY.yaml; UserError where it is not there, wrong, or another study's."""
    source = Path("studies", f"{study}.yaml")
    if not source.is_file():
        names = ", ".join(sorted(path.stem for path in Path("studies").glob("*.yaml")))
        raise UserError(f"studies/: found no '{study}'; allowed: {names or 'none here; run this in the repository'}")
    if (found := load_study(source).study) != study:
        raise UserError(f"{source}: study: found '{found}'; allowed: '{study}', as the file is called")
    return source


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The new study's name.")],
    source: Annotated[str, typer.Option("--from", help="A name below studies/, or a study file.")] = "quick",
) -> None:
    """Write studies/NAME.yaml, a copy of another study under its own name: its results will lie in results/NAME."""
    path = Path("studies", f"{name}.yaml")
    if path.exists():
        raise UserError(f"{path}: is there already; choose another name, or edit it")
    origin = Path(source) if source.endswith(".yaml") else _study_file(source)
    content = load_study(origin).model_dump(by_alias=True)
    validate(path, content | {"study": name}, Study)  # the name too, before it becomes a file's
    text = origin.read_text(encoding="utf-8")
    text, found = re.subn(r"^study:[^#\n]*(#.*)?$", f"study: {name}", text, count=1, flags=re.MULTILINE)
    if not found:
        raise UserError(f"{origin}: found no line that begins with `study:`; write it so")
    write_text(path, text)
    typer.echo(f"{path}: written; edit it, then: trained-binarization select {name}")


@app.command()
def summary(
    params: Params = PARAMS,
    width: Annotated[
        float | None, typer.Option(min=0.01, max=16, callback=_finite, help="In place of the study's width.")
    ] = None,
) -> None:
    """Print what each of the study's networks costs, layer by layer."""
    from trained_binarization.networks.summary import layer_costs
    from trained_binarization.training.runs import built

    study = load_study(params)
    classes = {"imagenet": 1000}.get(study.dataset.name, 10)
    for network in study.networks:
        if isinstance(study.dataset, ImageFolder):
            size = study.dataset.image_size[network]
        else:
            size = {"digits": 16, "cifar10": 32}[study.dataset.name]
        architecture = study.architecture[network]
        if width is not None:
            architecture = architecture.model_copy(update={"width": width})
        one = study.model_copy(update={"architecture": {network: architecture}})
        rows = layer_costs(built(one, network, study.method, size, classes), size)
        typer.echo(f"{network}, width {architecture.width:g}, {size}x{size} images, scaling factors apart")
        columns = list(rows[0])
        cells = [columns] + [[f"{v:,}" if isinstance(v, int) else v for v in row.values()] for row in rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
        for row in cells:
            padded = (c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            typer.echo("  ".join(padded).rstrip())


def main() -> None:
    """Run the command; what a user can mend ends in one line and status 2."""
    try:
        ensure_home()
        status = app(standalone_mode=False)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        status = error.exit_status
    except typer.Abort:
        status = 130
    except Exception as error:
        # The command line's own faults; typer brings its own copy of click, whose classes have no public name.
        if not hasattr(error, "format_message"):
            raise
        found = (
            f"; found {error.__cause__.errors()[0]['input']!r}" if isinstance(error.__cause__, ValidationError) else ""
        )
        if message := " ".join(error.format_message().split()):  # none where the help was shown instead
            typer.echo(f"error: {one_line(message + found)}", err=True)
        status = 2
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()

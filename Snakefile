# The DAG, thin: what each stage reads, writes and is told. dvc.yaml says the same; what a stage does is in
# src/trained_binarization. Outputs are update()d, never deleted beforehand. Weights are not declared: a fresh clone has
# none and needs none. Reading this file writes nothing.
import os
import shutil
import sys
from pathlib import Path

from trained_binarization.deploy.stage import without_model
from trained_binarization.errors import UserError
from trained_binarization.evidence import FIGURES, TABLES, agreement_files, figures_of
from trained_binarization.evidence.status import status_lines
from trained_binarization.progress import JOBS
from trained_binarization.records import untrained
from trained_binarization.study import load_study

# The study file. A Path, since Snakemake takes no notice when such a parameter changes: what a stage reads of it is
# among the stage's other parameters, so studies/quick.yaml and a params.yaml equal to it mean the same.
FILE = Path(os.path.relpath((workflow.overwrite_configfiles or ["params.yaml"])[-1]))

try:
    if len(workflow.overwrite_configfiles) > 1 or workflow.config_settings.config:
        raise UserError("snakemake: found --config or several --configfile; allowed: one --configfile, a whole study")
    if not os.access(".snakemake" if Path(".snakemake").exists() else ".", os.W_OK):
        raise UserError(f"{Path.cwd()}: cannot be written; Snakemake keeps notes in .snakemake there: work in a copy")
    STUDY = load_study(FILE)
    FOLDER = Path("results", STUDY.study)
    # A run that is done has no rule: its record is given, like claims.yaml. Only untrained() says whether it is done;
    # file times cannot, since a source archive has one time for all files, and a clone any order of times. The rules
    # pretrain, finetune and ablate match the other runs, and the profiles force them. In the same way, deploy_again
    # matches the networks whose model is gone. On a cluster, a job has a Snakemake of its own, which is told what to
    # run: there the rules match everything.
    MAIN = workflow.is_main_process
    TO_TRAIN = untrained(Path("results"), STUDY) if MAIN else dict.fromkeys(STUDY.runs(), "")
    TO_DEPLOY = without_model(Path("results"), STUDY) if MAIN else STUDY.networks
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)

for one, why in TO_TRAIN.items():
    if why and (FOLDER / one.folder / "record.json").exists():
        print(f"{one} is trained again: {why}", file=sys.stderr)

if not workflow.overwrite_configfiles:

    configfile: "params.yaml"


# A network's name where a run that is to be trained follows in the path.
UNTRAINED = "|".join(f"{one.network}(?=/{one.variant}/seed{one.seed}/)" for one in TO_TRAIN) or "none"
# Trainings queue for a GPU where the study may use one and one is there.
GPU = int(config["compute"]["device"] != "cpu" and shutil.which("nvidia-smi") is not None)
if MAIN:  # how many trainings run side by side: from it each tells how long the rest takes
    os.environ[JOBS] = str(1 if GPU else max(1, (workflow.resource_settings.cores or 1) // STUDY.compute.threads))
EVIDENCE = sorted(map(str, Path("src/trained_binarization/evidence").glob("*.*")))
SOURCES = ["claims.yaml", *EVIDENCE]

shell.prefix("source profiles/logged.sh; ")


report: "captions/workflow.rst"


wildcard_constraints:
    study=STUDY.study,
    network="|".join(STUDY.networks),
    variant="|".join(STUDY.ablations) or "none",  # no text is no constraint
    seed=r"\d+",


rule prepare:
    output:
        update("results/{study}/data.json"),
    log:
        "logs/{study}/prepare.log",
    params:
        file=FILE,
        dataset=config["dataset"],
    shell:
        "logged {log:q} python -m trained_binarization prepare --study {wildcards.study:q} --params {params.file:q}"


rule pretrain:
    input:
        "results/{study}/data.json",
    output:
        update("results/{study}/runs/{network}/full_precision/seed{seed}/record.json"),
        update("results/{study}/runs/{network}/full_precision/seed{seed}/history.csv"),
    log:
        "logs/{study}/pretrain/{network}-seed{seed}.log",
    wildcard_constraints:
        network=UNTRAINED,
    threads: config["compute"]["threads"]
    resources:
        gpu=GPU,
    params:
        file=FILE,
    shell:
        "logged {log:q} python -m trained_binarization pretrain --study {wildcards.study:q} --params {params.file:q}"
        " --network {wildcards.network:q} --seed {wildcards.seed:q}"


rule finetune:
    input:
        "results/{study}/data.json",
        "results/{study}/runs/{network}/full_precision/seed{seed}/record.json",
    output:
        update("results/{study}/runs/{network}/method/seed{seed}/record.json"),
        update("results/{study}/runs/{network}/method/seed{seed}/history.csv"),
    log:
        "logs/{study}/finetune/{network}-seed{seed}.log",
    wildcard_constraints:
        network=UNTRAINED,
    threads: config["compute"]["threads"]
    resources:
        gpu=GPU,
    params:
        file=FILE,
    shell:
        "logged {log:q} python -m trained_binarization finetune --study {wildcards.study:q} --params {params.file:q}"
        " --network {wildcards.network:q} --seed {wildcards.seed:q}"


rule ablate:
    input:
        "results/{study}/data.json",
        "results/{study}/runs/{network}/full_precision/seed{seed}/record.json",
    output:
        update("results/{study}/runs/{network}/{variant}/seed{seed}/record.json"),
        update("results/{study}/runs/{network}/{variant}/seed{seed}/history.csv"),
    log:
        "logs/{study}/ablate/{network}-{variant}-seed{seed}.log",
    wildcard_constraints:
        network=UNTRAINED,
    threads: config["compute"]["threads"]
    resources:
        gpu=GPU,
    params:
        file=FILE,
    shell:
        "logged {log:q} python -m trained_binarization ablate --study {wildcards.study:q} --params {params.file:q}"
        " --network {wildcards.network:q} --variant {wildcards.variant:q} --seed {wildcards.seed:q}"


# The method's first seed, and all seeds' accuracies on its card. Where no model can be made here, deploy.json says why.
rule deploy:
    input:
        "results/{study}/data.json",
        expand(
            "results/{{study}}/runs/{{network}}/method/seed{seed}/{file}",
            seed=STUDY.seeds.finetune,
            file=["record.json", "history.csv"],
        ),
    output:
        update("results/{study}/deploy/{network}/deploy.json"),
        update("results/{study}/deploy/{network}/card.md"),
    log:
        "logs/{study}/deploy/{network}.log",
    threads: config["compute"]["threads"]
    params:
        file=FILE,
    shell:
        "logged {log:q} python -m trained_binarization deploy --study {wildcards.study:q} --params {params.file:q}"
        " --network {wildcards.network:q}"


ruleorder: deploy_again > deploy


use rule deploy as deploy_again with:
    wildcard_constraints:
        network="|".join(TO_DEPLOY) or "none",


rule aggregate:
    input:
        "results/{study}/data.json",
        expand("results/{{study}}/{folder}/record.json", folder=[run.folder for run in STUDY.runs()]),
        expand("results/{{study}}/{folder}/history.csv", folder=[run.folder for run in STUDY.runs()]),
        SOURCES,
    output:
        [
            report(
                update(f"results/{{study}}/tables/{name}.csv"),
                caption="captions/table.rst",
                category="Tables",
                labels={"table": name, "shows": TABLES[name]},
            )
            for name in TABLES
        ],
        [update(f"results/{{study}}/tables/{name}.md") for name in TABLES if name != "curves"],
        [
            report(
                update(f"results/{{study}}/figures/{name}.svg"),
                caption="captions/figure.rst",
                category="Figures",
                labels={"figure": name, "shows": FIGURES[name]},
            )
            for name in figures_of(STUDY)
        ],
        [update(f"results/{{study}}/figures/{name}.png") for name in figures_of(STUDY)],
        update("results/{study}/verdicts.json"),
        update("results/{study}/metrics.json"),
    log:
        "logs/{study}/aggregate.log",
    params:
        file=FILE,
        whole=config,
    shell:
        "logged {log:q} python -m trained_binarization aggregate --study {wildcards.study:q} --params {params.file:q}"


# Beside the reference evidence in reference/, where the study has one.
rule agreement:
    input:
        "results/{study}/data.json",
        expand("results/{{study}}/{folder}/record.json", folder=[run.folder for run in STUDY.runs()]),
        expand("results/{{study}}/{folder}/history.csv", folder=[run.folder for run in STUDY.runs()]),
        "results/{study}/verdicts.json",
        sorted(map(str, Path("reference").glob("*.*"))),
        EVIDENCE,
    output:
        [update(f"results/{{study}}/agreement/{name}") for name in agreement_files(STUDY)],
    log:
        "logs/{study}/agreement.log",
    params:
        file=FILE,
    shell:
        "logged {log:q} python -m trained_binarization agreement --study {wildcards.study:q} --params {params.file:q}"


rule report:
    input:
        rules.aggregate.output,
        rules.agreement.output,
        SOURCES,
    output:
        report(
            update("results/{study}/report.html"),
            caption="captions/report.rst",
            category="Reports",
        ),
        update("results/{study}/report.md"),
    log:
        "logs/{study}/report.log",
    params:
        file=FILE,
        whole=config,
    shell:
        "logged {log:q} python -m trained_binarization report --study {wildcards.study:q} --params {params.file:q}"


rule replication:
    input:
        expand("results/{study}/verdicts.json", study=STUDY.study),
        expand("results/{study}/report.html", study=STUDY.study),
        expand(rules.deploy.output, study=STUDY.study, network=STUDY.networks),
        SOURCES,
    output:
        report(
            update("results/report.html"),
            caption="captions/replication.rst",
            category="Reports",
        ),
        update("results/report.md"),
        update("results/SHA256SUMS"),
    log:
        "logs/replication.log",
    shell:
        "logged {log:q} python -m trained_binarization report --replication"


# Snakemake makes what is missing only where the target names it. So this names every file of the study that git holds.
rule all:
    default_target: True
    input:
        expand(rules.prepare.output, study=STUDY.study),
        expand("{folder}/{run.folder}/{file}", folder=FOLDER, run=STUDY.runs(), file=["record.json", "history.csv"]),
        expand(rules.aggregate.output, study=STUDY.study),
        expand(rules.agreement.output, study=STUDY.study),
        expand(rules.report.output, study=STUDY.study),
        rules.replication.input,
        rules.replication.output,


onsuccess:
    if MAIN and "MAKELEVEL" not in os.environ:  # make says it itself, and takes its exit status
        print("\n".join(status_lines(STUDY, Path("results"), FILE)[0]), file=sys.stderr)

# The DAG, thin: what each stage reads, writes and is told. dvc.yaml says the same; what a stage does is in
# src/trained_binarization, and a run that needs no training (records.py) returns at once, whoever made its record.
# Outputs are update()d, never deleted beforehand. Weights are not declared: a fresh clone has none and needs none.
import os
import shutil
import sys
from pathlib import Path

from trained_binarization.errors import UserError
from trained_binarization.records import METHOD_VERSION, data_path, needs_training, read_data, run_folder, settings_of
from trained_binarization.study import FULL_PRECISION, METHOD, load_study

# The study file. A Path, since Snakemake takes no notice when such a parameter changes: what a stage reads of it is
# among the stage's other parameters, so studies/quick.yaml and a params.yaml equal to it mean the same.
FILE = Path(os.path.relpath((workflow.overwrite_configfiles or ["params.yaml"])[-1]))

try:
    if len(workflow.overwrite_configfiles) > 1 or workflow.config_settings.config:
        raise UserError("snakemake: found --config or several --configfile; allowed: one --configfile, a whole study")
    STUDY = load_study(FILE)
    # A fresh clone remembers no parameters, and has no weights: a record of other settings, or of a run whose weights
    # others are to start from, is made older than all that it depends on (by one second after the epoch: Snakemake
    # takes 0 for no time at all).
    if data_path(Path("results"), STUDY).exists():
        checksum = read_data(Path("results"), STUDY).checksum
        for one in STUDY.runs():
            record = run_folder(Path("results"), STUDY, one) / "record.json"
            if record.exists() and needs_training(Path("results"), STUDY, one, checksum):
                os.utime(record, (1, 1))
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)

if not workflow.overwrite_configfiles:

    configfile: "params.yaml"


# Trainings queue for a GPU where the study may use one and one is there.
GPU = int(config["compute"]["device"] != "cpu" and shutil.which("nvidia-smi") is not None)
EVIDENCE = sorted(map(str, Path("src/trained_binarization/evidence").glob("*.*")))


report: "captions/workflow.rst"


wildcard_constraints:
    study=STUDY.study,
    network="|".join(STUDY.networks),
    variant="|".join(STUDY.ablations) or "none",  # no text is no constraint
    seed=r"\d+",


# A killed engine leaves its backups of folders behind, and would stumble over them.
onstart:
    shutil.rmtree(Path(".snakemake/backups/results", STUDY.study), ignore_errors=True)


rule replication:
    default_target: True
    input:
        expand("results/{study}/verdicts.json", study=STUDY.study),
        expand("results/{study}/report.html", study=STUDY.study),
        expand(
            "results/{study}/deploy/{network}/{file}",
            study=STUDY.study,
            network=STUDY.networks,
            file=["deploy.json", "card.md"],
        ),
        "claims.yaml",
        EVIDENCE,
    output:
        report(
            update("results/report.html"),
            caption="captions/replication.rst",
            category="Reports",
        ),
        update("results/report.md"),
    log:
        "logs/replication.log",
    shell:
        "python -m trained_binarization report --replication &> {log}"


rule prepare:
    output:
        update("results/{study}/data.json"),
    log:
        "logs/{study}/prepare.log",
    params:
        study=FILE,
        dataset=config["dataset"],
    shell:
        "python -m trained_binarization prepare --params {params.study:q} &> {log}"


rule pretrain:
    input:
        "results/{study}/data.json",
    output:
        update("results/{study}/runs/{network}/full_precision/seed{seed}/record.json"),
        update("results/{study}/runs/{network}/full_precision/seed{seed}/history.csv"),
    log:
        "logs/{study}/pretrain/{network}-seed{seed}.log",
    threads: config["compute"]["threads"]
    resources:
        gpu=GPU,
    params:
        study=FILE,
        version=METHOD_VERSION,
        settings=lambda w: settings_of(STUDY, STUDY.find(w.network, FULL_PRECISION, int(w.seed))),
    shell:
        "python -m trained_binarization pretrain --params {params.study:q}"
        " --network {wildcards.network} --seed {wildcards.seed} &> {log}"


rule finetune:
    input:
        "results/{study}/data.json",
        "results/{study}/runs/{network}/full_precision/seed{seed}/record.json",
    output:
        update("results/{study}/runs/{network}/method/seed{seed}/record.json"),
        update("results/{study}/runs/{network}/method/seed{seed}/history.csv"),
    log:
        "logs/{study}/finetune/{network}-seed{seed}.log",
    threads: config["compute"]["threads"]
    resources:
        gpu=GPU,
    params:
        study=FILE,
        version=METHOD_VERSION,
        settings=lambda w: settings_of(STUDY, STUDY.find(w.network, METHOD, int(w.seed))),
    shell:
        "python -m trained_binarization finetune --params {params.study:q}"
        " --network {wildcards.network} --seed {wildcards.seed} &> {log}"


rule ablate:
    input:
        "results/{study}/data.json",
        "results/{study}/runs/{network}/full_precision/seed{seed}/record.json",
    output:
        update("results/{study}/runs/{network}/{variant}/seed{seed}/record.json"),
        update("results/{study}/runs/{network}/{variant}/seed{seed}/history.csv"),
    log:
        "logs/{study}/ablate/{network}-{variant}-seed{seed}.log",
    threads: config["compute"]["threads"]
    resources:
        gpu=GPU,
    params:
        study=FILE,
        version=METHOD_VERSION,
        settings=lambda w: settings_of(STUDY, STUDY.find(w.network, w.variant, int(w.seed))),
    shell:
        "python -m trained_binarization ablate --params {params.study:q}"
        " --network {wildcards.network} --variant {wildcards.variant} --seed {wildcards.seed} &> {log}"


# The method's first seed, and all seeds' accuracies on its card; the model itself is not declared, like weights.
rule deploy:
    input:
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
        study=FILE,
    shell:
        "python -m trained_binarization deploy --params {params.study:q} --network {wildcards.network} &> {log}"


rule aggregate:
    input:
        "results/{study}/data.json",
        expand("results/{{study}}/{folder}/record.json", folder=[run.folder for run in STUDY.runs()]),
        expand("results/{{study}}/{folder}/history.csv", folder=[run.folder for run in STUDY.runs()]),
        "claims.yaml",
        EVIDENCE,
    output:
        report(
            update(directory("results/{study}/tables")),
            patterns=["{name}.csv"],
            caption="captions/table.rst",
            category="Tables",
            labels={"table": "{name}"},
        ),
        report(
            update(directory("results/{study}/figures")),
            patterns=["{name}.svg"],
            caption="captions/figure.rst",
            category="Figures",
            labels={"figure": "{name}"},
        ),
        update("results/{study}/verdicts.json"),
        update("results/{study}/metrics.json"),
    log:
        "logs/{study}/aggregate.log",
    params:
        study=FILE,
        whole=config,
    shell:
        "python -m trained_binarization aggregate --params {params.study:q} &> {log}"


rule report:
    input:
        "results/{study}/tables",
        "results/{study}/figures",
        "results/{study}/verdicts.json",
        "results/{study}/metrics.json",
        "claims.yaml",
        EVIDENCE,
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
        study=FILE,
        whole=config,
    shell:
        "python -m trained_binarization report --params {params.study:q} &> {log}"

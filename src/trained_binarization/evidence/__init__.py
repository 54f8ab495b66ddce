"""From records to evidence: statistics, verdicts, tables, figures and reports. Imports no torch."""

from pathlib import Path

from trained_binarization.study import Study

TABLES = {
    "claims": "The paper's claims against ours, each with its verdict.",
    "ablation": "Each ablation against the method: paired differences over the seeds they share.",
    "published": "Our accuracy beside published ones, these as printed there.",
    "layers": "What each layer costs: parameters, operations, bytes in float and in one bit.",
    "deviations": "Where the replication departs from the paper, and why.",
    "runs": "Every run with its result.",
    "curves": "Loss and accuracy of every run, epoch by epoch.",
}
"""The tables that `aggregate` writes, and what they show. All but the long `curves` are written as Markdown too."""

FIGURES = {
    "method": "Sign and step, and below each every estimator's derivative.",
    "ablation": "The method minus each ablation in points, paired by seed, with Holm-corrected 95 % intervals.",
    "curves": "Accuracy by epoch, one panel a variant: mean over the seeds, band from the lowest to the highest.",
    "alphas": "The method's scaling factors by epoch and layer: median over the seeds, band from lowest to highest.",
    "size": "Accuracy against the size of the model.",
}
"""The figures that `aggregate` draws, and what they show."""


def figures_of(study: Study) -> list[str]:
    """The figures that there is data for once all runs of the study are done."""
    method = study.method
    factors = method.activation_scaling != "none" or method.weight_scaling not in ("none", "analytic")
    drawn = {"ablation": bool(study.ablations), "alphas": factors}
    return [name for name in FIGURES if drawn.get(name, True)]


def agreement_files(study: Study, reference: Path = Path("reference")) -> list[str]:
    """What the stage `agreement` writes. Without reference evidence it is agreement.json alone, which says so."""
    has_reference = (reference / f"{study.study}.json").is_file()
    return ["agreement.json", *(["agreement.md", "agreement.svg", "agreement.png"] if has_reference else [])]

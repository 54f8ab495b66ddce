"""The stage `aggregate`: a study's records and histories into tables, figures, verdicts and metrics.

What is written is a function of records, histories, the study and claims.yaml, and holds nothing that differs between
two runs of the same training (no dates, wall times, commits): two engines give byte-equal files.
"""

from pathlib import Path
from typing import Any

from trained_binarization import files
from trained_binarization.evidence import figures, tables
from trained_binarization.evidence.claims import Claims, load_claims
from trained_binarization.evidence.frames import done_records, history_frame, runs_frame
from trained_binarization.evidence.markdown import escape
from trained_binarization.evidence.verdicts import StudyVerdicts, judge
from trained_binarization.study import FULL_PRECISION, Study

CURVES = ["network", "variant", "seed", "epoch", "train_loss", "train_accuracy", "evaluation_accuracy"]


def study_tables(study: Study, results: Path, found: StudyVerdicts, claims: Claims) -> list[tables.Table]:
    """Every table of a study, in the order of the report."""
    layers: dict[str, list[dict[str, Any]]] = {}
    for run, _, record, _ in done_records(study, results):
        # Every run of a network has the same layers, counted as binary; the method's stand for all.
        if record is not None and (run.network not in layers or run.variant != FULL_PRECISION):
            layers.setdefault(run.network, record.layers)
    return [
        tables.claims_table(found, claims),
        tables.family_table(found) if found.family else tables.ablation_table(found, claims),
        tables.published_table(found, claims),
        tables.layers_table(layers, claims),
        tables.deviations_table(claims),
        tables.runs_table(runs_frame(study, results), claims),
    ]


def _metrics(found: StudyVerdicts) -> dict[str, float]:
    """One number an arm, its mean accuracy in percent: few and short enough for DVC's tables of experiments."""
    several = len(found.networks) > 1
    return {f"{row.network}.{row.variant}" if several else row.variant: round(row.mean, 2) for row in found.accuracies}


def aggregate(study: Study, results: Path, claims_path: Path) -> str:
    """Write results/<study>/tables, figures, verdicts.json and metrics.json; a line that says from how many runs."""
    claims = load_claims(claims_path)
    folder = results / study.study
    found = judge(study, results, claims)
    history = history_frame(study, results)

    written = set()
    for table in study_tables(study, results, found, claims):
        files.write_text(folder / "tables" / f"{table.name}.csv", table.csv())
        files.write_text(folder / "tables" / f"{table.name}.md", f"{escape(table.caption)}\n\n{table.markdown()}")
        written |= {f"{table.name}.csv", f"{table.name}.md"}
    long = history[CURVES].to_csv(index=False, float_format="%.6g", lineterminator="\n")
    files.write_text(folder / "tables" / "curves.csv", long)
    _sweep(folder / "tables", written | {"curves.csv"})

    drawn = figures.draw(found, history, claims, folder / "figures")
    _sweep(folder / "figures", {f"{name}.{kind}" for name in drawn for kind in ("svg", "png")})

    files.write_json(folder / "metrics.json", _metrics(found))
    files.write_json(folder / "verdicts.json", found.model_dump(exclude_unset=True), indent=1, ensure_ascii=False)
    left = f"; not run: {len(found.not_run)}, first: {found.not_run[0]['command']}" if found.not_run else ""
    return f"{study.study}: tables, figures and verdicts from {found.runs_done} of {found.runs_asked} runs{left}"


def _sweep(folder: Path, keep: set[str]) -> None:
    """Remove what earlier aggregations left and this one did not write."""
    for path in folder.iterdir():
        if path.is_file() and path.name not in keep:
            path.unlink()

"""What a study's results are, in a few lines: what a person wants to read when a long command ends."""

from pathlib import Path

from trained_binarization.evidence.agreement import read_agreement
from trained_binarization.evidence.comparison import in_words
from trained_binarization.evidence.verdicts import StudyVerdicts, read_verdicts
from trained_binarization.study import Study


def status_lines(study: Study, results: Path, params: Path) -> tuple[list[str], bool]:
    """(the lines, False where the runs differ from the reference)."""
    folder = results / study.study
    found, agreement = read_verdicts(folder / "verdicts.json"), read_agreement(folder)
    lines = ["", f"{study.study}: {study.title}"]
    if found is None:
        return [*lines, f"  no results yet; make them with: snakemake --cores all --configfile {params}"], True
    lines += [f"  {'runs':<10} {found.runs_done} of {found.runs_asked} are done"]
    lines += [f"  {'accuracy':<10} {line}" if i == 0 else f"  {'':<10} {line}" for i, line in enumerate(_arms(found))]
    if agreement and agreement.verdict != "no reference":
        lines += [f"  {'agreement':<10} {in_words(agreement).removeprefix(f'{study.study}: ')}"]
    report = (folder / "report.html").absolute()
    if report.exists():
        lines += [f"  {'report':<10} {report.as_uri()}"]
    return lines, not (agreement and agreement.verdict == "differs")


def _arms(found: StudyVerdicts) -> list[str]:
    """Each arm's mean accuracy and its number of seeds."""
    several = len(found.networks) > 1
    names = [f"{row.network} {row.variant}" if several else row.variant for row in found.accuracies]
    widest = max(map(len, names), default=0)
    lines = [
        f"{name:<{widest}}  {row.mean:5.2f} %, {len(row.seeds)} seed{'' if len(row.seeds) == 1 else 's'}"
        for name, row in zip(names, found.accuracies, strict=True)
    ]
    return lines or ["no run is done"]

"""The stage `agreement` and the command `compare`: two sets of runs beside each other, as JSON, Markdown and figure."""

from pathlib import Path

from trained_binarization import files
from trained_binarization.evidence import agreement, figures, tables
from trained_binarization.evidence.agreement import Agreement, Evidence
from trained_binarization.evidence.frames import done_records
from trained_binarization.evidence.markdown import Markdown, escape
from trained_binarization.evidence.verdicts import read_verdicts
from trained_binarization.study import Study, load_study

CAPTION = (
    "Left: every run's accuracy (dots) and the means (strokes). Right: here minus reference, with simultaneous "
    "95 % intervals; the band is the margin."
)


def in_words(found: Agreement) -> str:
    """The verdict and what it rests on, as one sentence."""
    if found.verdict == "no reference":
        return f"{found.study}: no reference evidence to compare with"
    equal, shared = (sum(getattr(arm, name) for arm in found.arms) for name in ("equal", "shared"))
    widest = max(found.arms, key=lambda arm: abs(arm.difference))
    apart = [f"{arm.variant} ({arm.difference:+.2f} points)" for arm in found.arms if arm.finding == "differs"]
    what = {
        "identical": "identical to the reference",
        "agrees": "agrees with the reference",
        "undecided": "undecided: too few seeds to say whether it agrees with the reference",
        "differs": f"differs from the reference in {', '.join(apart)}",
    }[found.verdict]
    return (
        f"{found.study}: {what}; {equal} of {shared} runs of the same seed are equal bit for bit; "
        f"the largest difference of an arm's means is {abs(widest.difference):.2f} points ({widest.variant})"
    )


def markdown(found: Agreement) -> Markdown:
    """The comparison as a Markdown page, without its figure."""
    table = tables.agreement_table(found)
    parts = [f"{escape(in_words(found))}.", table.markdown(), escape(table.caption)]
    devices = [f"Here: {escape('; '.join(found.ours_on))}.", f"Reference: {escape('; '.join(found.theirs_on))}."]
    parts.append("\n".join(f"- {line}" for line in [*devices, *map(escape, found.notes)]))
    if other := [row for row in found.verdicts if row[1] != row[2]]:
        lines = [f"| {escape(name)} | {escape(ours)} | {escape(theirs)} |" for name, ours, theirs in other]
        parts.append("\n".join(["| Verdict of | Here | Reference |", "|---|---|---|", *lines]))
    if found.verdicts:
        parts.append(f"{len(found.verdicts) - len(other)} of {len(found.verdicts)} verdicts are the same.")
    return Markdown("\n\n".join(part.strip() for part in parts) + "\n")


def _write(found: Agreement, folder: Path) -> None:
    files.write_json(folder / agreement.NAME, found.model_dump(), indent=1)
    if found.arms:
        figures.draw_one(lambda: figures.agreement(found), folder, "agreement")
        files.write_text(folder / "agreement.md", f"{markdown(found)}\n![{CAPTION}](agreement.png)\n")


def agree(study: Study, results: Path, reference: Path) -> Agreement:
    """Compare the study's finished runs with its reference evidence; write results/STUDY/agreement/.

    Without a reference, or without a finished run, the file says so.
    """
    done = [record for _, _, record, _ in done_records(study, results) if record is not None]
    if done and agreement.reference_path(reference, study.study).is_file():
        ours = agreement.gather(study.study, done, read_verdicts(results / study.study / "verdicts.json"))
        found = agreement.compare(ours, agreement.read_evidence(reference, study.study))
    else:
        found = Agreement(study=study.study, verdict="no reference")
    _write(found, results / study.study / "agreement")
    return found


def compare(ours: Path, theirs: Path, study: str | None, to: Path | None) -> Agreement:
    """Compare a study's records below two folders; write the comparison to a third, if one is named.

    A folder may also be one study's own, such as results/mine: then that study is meant.
    """
    found = agreement.compare(_side(ours, study), _side(theirs, study))
    if to is not None:
        _write(found, to)
    return found


def _side(folder: Path, study: str | None) -> Evidence:
    if (folder / "runs").is_dir():
        own = folder.resolve()
        return agreement.read_evidence(own.parent, own.name)
    return agreement.read_evidence(folder, study or load_study(Path("params.yaml")).study)

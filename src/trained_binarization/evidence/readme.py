"""README's generated parts: the answer in a few lines, and the table of claims with short cells."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trained_binarization.evidence import tables
from trained_binarization.evidence.families import Effect
from trained_binarization.evidence.markdown import Markdown, escape
from trained_binarization.evidence.verdicts import StudyVerdicts, Verdict, in_words
from trained_binarization.records import data_path
from trained_binarization.study import ImageFolder, Study

Rows = Sequence[Mapping[str, Any]]
"""The replication's claims, each with its own verdict (or None) and what the paper says."""


def missing(study: Study | None, results: Path) -> str:
    """In three words, why a claim has no verdict."""
    if study is None:
        return "no such study"
    unseen = isinstance(study.dataset, ImageFolder) and not data_path(results, study).exists()
    return "images not here" if unseen else "runs not made"


def answer(
    rows: Rows, families: Sequence[tuple[Study, StudyVerdicts]], studies: Mapping[str, Study], results: Path, base: str
) -> Markdown:
    """What was found: the claims that have a verdict, the judged ingredients, and what was not run."""
    lines = []
    for row in rows:
        if row["own"]:
            verdict: Verdict = row["own"]
            link = f"{base}{row['claim'].study}/report.md"
            what = f"[{escape(in_words(verdict))}]({link}), {len(verdict.seeds)} seeds"
            lines.append(f"- **{verdict.outcome.capitalize()}.** {escape(row['claim'].sentence)} Here: {what}.")
    for study, found in families:
        family = [row for row in found.family or [] if row.role == "confirmatory" and row.low is not None]
        # An interval from a part of the declared seeds is no answer.
        if said := [_effect(row) for row in family if row.outcome != "not run"]:
            lines.append(f"- [{escape(study.title)}]({base}{study.study}/report.md):")
            lines += [f"  - {one}" for one in said]
    left = [missing(studies.get(row["claim"].study), results) for row in rows if not row["own"]]
    if left:
        why = ", ".join(f"{reason} ({n})" for reason, n in Counter(left).items())
        lines.append(f"- **Not run.** {len(left)} of {len(rows)} claims: {why}.")
    return Markdown("\n".join(lines) + "\n")


def _effect(row: Effect) -> str:
    number, interval = tables.number(row.difference, sign=True).text, tables.interval(row.low, row.high, sign=True).text
    says = {"helps": "Yes", "hurts": "No, it hurts", "no effect larger than delta": f"No effect above {row.delta:g}"}
    question = escape(row.asks[0].upper() + row.asks[1:])
    return f"{question} {says.get(row.outcome, row.outcome.capitalize())}: {number} {interval} points."


def claims_table(rows: Rows, studies: Mapping[str, Study], results: Path, base: str) -> Markdown:
    """Claim, paper, here, verdict: the paper's own setting alone. `base` leads from README to results/."""
    lines = ["| Claim | Paper | Here | Verdict |", "|---|--:|--:|---|"]
    for row in rows:
        report = f"{base}{row['claim'].study}/report.md"
        if row["own"]:
            ours, interval, _, outcome = tables.verdict_cells(row["own"])
            here, verdict = f"[{ours.text}]({report}{ours.link}) {interval.text}", f"**{outcome.text}**"
        else:
            reason = missing(studies.get(row["claim"].study), results)
            there = (results / row["claim"].study / "report.md").exists()  # with the commands that make the runs
            here, verdict = tables.DASH, f"{f'[not run]({report}#runs)' if there else 'not run'}: {reason}"
        lines.append(f"| {escape(row['claim'].sentence)} | {row['paper']} | {here} | {verdict} |")
    return Markdown("\n".join(lines) + "\n")

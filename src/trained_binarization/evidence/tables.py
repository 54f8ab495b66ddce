"""Tables: rows of raw values with headings, written as CSV and Markdown and shown in reports."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from trained_binarization.evidence.agreement import CONFIDENCE, MARGIN, Agreement
from trained_binarization.evidence.claims import AccuracyClaim, Claims, HelpsClaim, SurpassesClaim
from trained_binarization.evidence.families import Effect
from trained_binarization.evidence.markdown import Markdown, code, escape
from trained_binarization.evidence.verdicts import Comparison, StudyVerdicts, Verdict
from trained_binarization.study import FULL_PRECISION, METHOD

DASH = "–"


@dataclass(frozen=True)
class Cell:
    """What a reader sees: text, what it rests on (an anchor in the study's report, or a file), and how to set it."""

    text: str
    link: str = ""
    style: str = ""  # "number", "chip reached" and the like, "code"


@dataclass(frozen=True)
class Table:
    """`rows` are raw values (the CSV); `cells` what a reader sees under `headings`."""

    name: str
    caption: str
    headings: list[str]
    rows: list[dict[str, Any]]
    cells: list[list[Cell]]
    anchors: list[list[str]] = field(default_factory=list)  # of each row, where others link to it

    def csv(self) -> str:
        """Raw values: floats with 4 decimals, nothing where there is no value."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        if self.rows:
            writer.writerow(self.rows[0])
        for row in self.rows:
            writer.writerow([_raw(value) for value in row.values()])
        return out.getvalue()

    def markdown(self, base: str | None = None) -> Markdown:
        """A Markdown table; with `base` cells link: to anchors of that file ("" for the same), to files as they are."""

        def show(cell: Cell) -> str:
            text = code(cell.text) if cell.style == "code" else escape(cell.text)
            return (
                f"[{text}]({base if cell.link[0] == '#' else ''}{cell.link})"
                if base is not None and cell.link
                else text
            )

        numeric = [bool(self.cells) and self.cells[0][i].style == "number" for i in range(len(self.headings))]
        lines = ["| " + " | ".join(self.headings) + " |", "|" + "|".join("--:" if n else "---" for n in numeric) + "|"]
        for i, row in enumerate(self.cells):
            marks = self.anchors[i] if base is not None and self.anchors else []
            shown = [show(cell) for cell in row]
            shown[0] = "".join(f'<a id="{mark}"></a>' for mark in marks) + shown[0]
            lines.append("| " + " | ".join(shown) + " |")
        return Markdown("\n".join(lines) + "\n")


def _raw(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def number(value: float | None, *, sign: bool = False, digits: int = 2, link: str = "") -> Cell:
    """A number with so many decimals, or a dash; a signed one with a true minus."""
    if value is None:
        return Cell(DASH, style="number")
    text = f"{round(value, digits) + 0.0:{'+' if sign else ''}.{digits}f}"  # + 0.0: no minus before a zero
    return Cell(text.replace("-", "−"), link, "number")


def interval(low: float | None, high: float | None, *, sign: bool = False) -> Cell:
    """[low, high], or a dash."""
    if low is None or high is None:
        return Cell(DASH, style="number")
    return Cell(f"[{number(low, sign=sign).text}, {number(high, sign=sign).text}]", style="number")


def count(value: int | None) -> Cell:
    """A whole number with thousands separated."""
    return Cell(DASH if value is None else f"{value:,}", style="number")


def chip(outcome: str, says: str, delta: float | None = None) -> Cell:
    """An outcome in words, with the colour of what it says about the claim."""
    kind = "missing" if outcome in ("not run", "not comparable") else says
    text = outcome.replace("larger than delta", f"larger than {delta:g}") if delta else outcome
    return Cell(text, style=f"chip {kind}")


def _table(
    name: str,
    caption: str,
    headings: Sequence[str],
    rows: list[Any],
    raw: Callable[[Any], dict[str, Any]],
    cells: Callable[[Any], list[Cell]],
) -> Table:
    return Table(name, caption, list(headings), [raw(row) for row in rows], [cells(row) for row in rows])


def group(network: str, variant: str) -> str:
    """The link to a network's and variant's runs in the runs table."""
    return f"#{network}-{variant}"


def paper_says(claim: AccuracyClaim | HelpsClaim | SurpassesClaim, claims: Claims) -> str:
    """The claim's reference in a few characters."""
    if isinstance(claim, AccuracyClaim):
        return f"{claim.value:g} %"
    if isinstance(claim, HelpsClaim):
        return "improves"
    return f"best before: {max(row.top1 for row in claims.previous(claim.network, claim.dataset)):g} %"


def verdict_cells(verdict: Verdict) -> list[Cell]:
    """Ours, interval, seeds and outcome of a verdict."""
    sign = verdict.kind == "helps"
    link = group(verdict.network, verdict.ablation or METHOD)
    return [
        number(verdict.ours, sign=sign, link=link),
        interval(verdict.low, verdict.high, sign=sign),
        Cell(str(len(verdict.seeds)), style="number"),
        chip(verdict.outcome, verdict.says, verdict.delta),
    ]


def claims_table(found: StudyVerdicts, claims: Claims) -> Table:
    """The paper's claims about the study's networks against the study's own numbers."""

    def raw(row: Verdict) -> dict[str, Any]:
        claim = claims.claims[row.claim]
        return {"claim": row.claim, "sentence": claim.sentence, "metric": claim.metric, "where": claim.where} | {
            "stand_in": row.stand_in or "",
            **row.model_dump(include={"reference", "delta", "ours", "low", "high", "seeds", "outcome", "reason"}),
        }

    def cells(row: Verdict) -> list[Cell]:
        claim = claims.claims[row.claim]
        label = " (stand-in)" if row.stand_in else ""
        *ours, outcome = verdict_cells(row)
        said = Cell(paper_says(claim, claims), style="number")
        return [Cell(claim.sentence), said, *ours, Cell(outcome.text + label, style=outcome.style), Cell(row.reason)]

    caption = "The paper's claims against this study. Accuracies in percent, differences in percentage points."
    if found.stand_in:
        caption += " This study is a stand-in: its verdicts are its own and say nothing about the paper's numbers."
    headings = ["Claim", "Paper", "Ours", "95 % interval", "Seeds", "Verdict", "Remark"]
    return _table("claims", caption, headings, found.verdicts, raw, cells)


def ablation_table(found: StudyVerdicts, claims: Claims) -> Table:
    """The method against each ablation, paired by seed."""

    def cells(row: Comparison) -> list[Cell]:
        return [
            Cell(claims.title(row.network)),
            Cell(row.ablation, group(row.network, row.ablation), "code"),
            number(row.method, link=group(row.network, METHOD)),
            number(row.ablated, link=group(row.network, row.ablation)),
            number(row.difference, sign=True, link=group(row.network, row.ablation)),
            interval(row.low, row.high, sign=True),
            Cell(DASH if row.p is None else "< 0.001" if row.p < 0.001 else f"{row.p:.3f}", style="number"),
            Cell(str(len(row.seeds)), style="number"),
            chip(row.outcome, {"helps": "reached", "hurts": "contradicted"}.get(row.outcome, "open"), row.delta),
            Cell(row.changes),
        ]

    caption = (
        "The method against each ablation, paired by seed: accuracies in percent, differences in percentage points. "
        "Intervals and p values carry Holm's correction over all ablations of the study. "
        "The verdict speaks of what the ablation leaves out."
    )
    headings = [
        "Network",
        "Ablation",
        "Method",
        "Ablated",
        "Difference",
        "Interval",
        "p",
        "Seeds",
        "Verdict",
        "Changes",
    ]
    return _table("ablation", caption, headings, found.comparisons, lambda row: row.model_dump(), cells)


def effect_cells(row: Effect, base: str = "") -> list[Cell]:
    """A contrast: what it asks, both arms, its difference, intervals, seeds and outcome; links lead into BASE."""
    link = base + group(row.network, row.ablation)
    says = {"helps": "reached", "hurts": "contradicted"}.get(row.outcome, "open")
    outcome = chip(row.outcome, says, row.delta)
    if row.outcome == "not run":
        outcome = Cell(f"not run: {row.reason}", style=outcome.style)
    return [
        Cell(row.asks[:1].upper() + row.asks[1:]),
        Cell(f"{row.plus} − {row.minus}", style="code"),
        number(row.difference, sign=True, link=link),
        interval(row.low, row.high, sign=True),
        Cell(DASH if row.confidence is None else f"{100 * row.confidence:.1f} %", style="number"),
        Cell(str(len(row.seeds)), style="number"),
        outcome,
        interval(row.pooled_low, row.pooled_high, sign=True),
        number(row.plain, sign=True),
        interval(row.plain_low, row.plain_high, sign=True),
    ]


EFFECT_HEADINGS = [
    "Question",
    "Contrast",
    "Difference",
    "Interval",
    "Confidence",
    "Seeds",
    "Outcome",
    "Pooled interval",
    "Plain accuracy",
    "Plain interval",
]
BRIEF = 7  # columns, up to the outcome


def family_table(found: StudyVerdicts) -> Table:
    """The study's contrasts, judged by the rule of its family."""
    rows = found.family or []
    caption = (
        "Differences in percentage points, paired by seed. Difference, interval and outcome rest on the accuracy by "
        "ten views. The interval is a paired t-interval with Bonferroni's correction over the confirmatory contrasts. "
        "The pooled interval assumes equal variances and decides nothing. Plain accuracy stands beside it. "
        "Exploratory contrasts were not declared before the run: their intervals have no correction, and no verdict."
    )
    if left := sorted({seed for row in rows for seed in row.left_out}):
        caption += f" Left out, because their records name several processors: seeds {', '.join(map(str, left))}."
    return _table("ablation", caption, EFFECT_HEADINGS, rows, lambda row: row.model_dump(), effect_cells)


def published_table(found: StudyVerdicts, claims: Claims) -> Table:
    """Published numbers on the study's networks, our own beside them."""
    rows: list[dict[str, Any]] = []
    for network in found.networks:
        for ours in (
            row for row in found.accuracies if row.network == network and row.variant in (FULL_PRECISION, METHOD)
        ):
            label = f"this study, {ours.variant.replace('_', ' ')}" + (" (stand-in)" if found.stand_in else "")
            rows.append(
                {
                    "network": network,
                    "dataset": found.dataset,
                    "name": label,
                    "year": None,
                    "bits": "32/32" if ours.variant == FULL_PRECISION else "1/1",
                    "structure": "plain",
                    "top1": ours.mean,
                    "low": ours.low,
                    "high": ours.high,
                    "source": "records of this study",
                    "note": "; ".join(
                        filter(None, [f"top-5 {ours.top5:.2f} %" if ours.top5 is not None else "", found.stand_in])
                    ),
                    "link": group(network, ours.variant),
                }
            )
        for row in (row for row in claims.published if row.network == network):
            own = row.model_dump(exclude={"top5", "previous"})
            note = "; ".join(filter(None, [row.note, f"top-5 {row.top5:g} %" if row.top5 else None]))
            previous = "previous work of the claim" if row.previous else ""
            own |= {"low": None, "high": None, "source": claims.sources[row.source], "link": ""}
            rows.append(own | {"note": "; ".join(filter(None, [previous, note]))})

    def cells(row: dict[str, Any]) -> list[Cell]:
        year = row["year"]
        printed = len(f"{row['top1']:g}".partition(".")[2])  # decimals as printed there
        digits = 2 if row["link"] else max(1, printed)
        return [
            Cell(claims.title(row["network"])),
            Cell(row["dataset"]),
            Cell(row["name"] + (f" ({year})" if year else "")),
            Cell(row["bits"], style="number"),
            Cell(row["structure"]),
            number(row["top1"], digits=digits, link=row["link"]),
            interval(row["low"], row["high"]),
            Cell(row["note"]),
            Cell(row["source"]),
        ]

    caption = (
        "Published accuracies (top-1, percent), as printed there; not re-run here. "
        "Ours stand beside them with 95 % intervals. Bits: of weights / of activations."
    )
    headings = ["Network", "Data", "Work", "Bits", "Structure", "Top-1", "Interval", "Remark", "Source"]
    return _table(
        "published", caption, headings, rows, lambda row: {k: v for k, v in row.items() if k != "link"}, cells
    )


def layers_table(layers: dict[str, list[dict[str, Any]]], claims: Claims) -> Table:
    """What each network costs, layer by layer; `layers` as in the records, by network."""
    rows = [{"network": network} | row for network, found in layers.items() for row in found]

    def cells(row: dict[str, Any]) -> list[Cell]:
        names = [
            Cell(claims.title(row["network"])),
            Cell(row["layer"]),
            Cell(row["type"]),
            Cell(row["output_shape"].replace("x", " × ")),
        ]
        return names + [count(row[key]) for key in list(row)[4:]]

    caption = (
        "Layers of the binary network: parameters, multiply-accumulates (MACs) for one image, and bytes with every "
        "parameter in 32 bits and with binary weights in one. Scaling factors are not counted."
    )
    headings = [
        "Network",
        "Layer",
        "Type",
        "Output",
        "Parameters",
        "… binary",
        "MACs",
        "… binary",
        "Bytes, float",
        "Bytes, one bit",
    ]
    return _table("layers", caption, headings, rows, dict, cells)


def deviations_table(claims: Claims) -> Table:
    """Where this replication cannot follow the paper, or chooses for it."""
    rows = [row.model_dump() for row in claims.deviations]
    caption = "Where this replication cannot follow the paper, or chooses for it, and why."
    return _table(
        "deviations",
        caption,
        ["What", "Paper", "Here", "Reason"],
        rows,
        dict,
        lambda row: [Cell(v) for v in row.values()],
    )


def runs_table(frame: pd.DataFrame, claims: Claims) -> Table:
    """Every run of the study, done or not."""
    rows = frame.drop(columns=["reason", "command"]).astype(object).where(frame.notna(), None).to_dict("records")
    order = list(dict.fromkeys((row["network"], row["variant"]) for row in rows))
    rows.sort(key=lambda row: order.index((row["network"], row["variant"])))  # a variant's seeds side by side
    top5 = any(row["top5"] is not None for row in rows)
    for row in rows:
        if not top5:
            del row["top5"]
        for key in ("best_epoch", "epochs", "images_scored"):
            row[key] = None if row[key] is None else int(row[key])

    def cells(row: dict[str, Any]) -> list[Cell]:
        done = row["status"] == "done"
        return [
            Cell(claims.title(row["network"])),
            Cell(row["variant"], style="code"),
            Cell(str(row["seed"]), style="number"),
            Cell(row["status"], style="" if done else "chip missing"),
            number(row["accuracy"]),
            *([number(row["top5"])] if top5 else []),
            number(row["best"]),
            count(row["best_epoch"]),
            count(row["epochs"]),
            Cell(f"{row['images_scored']:,} {row['scored']}" if done else DASH),
            Cell(row["fingerprint"][:8] if done else DASH, style="code" if done else ""),
            Cell(row["weights_sha256"][:8] if done else DASH, style="code" if done else ""),
        ]

    caption = (
        "Every run. The last epoch's accuracy (percent) is the one that counts; the best epoch's is shown beside it "
        "and chosen by nobody. Fingerprint: what was trained. Weights: SHA-256."
    )
    headings = [
        "Network",
        "Variant",
        "Seed",
        "Status",
        "Last",
        *(["Top-5"] if top5 else []),
        "Best",
        "at epoch",
        "Epochs",
        "Scored",
        "Fingerprint",
        "Weights",
    ]
    return _table("runs", caption, headings, rows, lambda row: {str(k): v for k, v in row.items()}, cells)


FINDING_STYLE = {"identical": "reached", "agrees": "reached", "differs": "contradicted"}
"""The colour of an agreement's finding; others have none."""


def finding_chip(finding: str) -> Cell:
    """A finding of an agreement with its colour."""
    return Cell(finding, style=f"chip {FINDING_STYLE.get(finding, 'open')}")


def agreement_table(found: Agreement) -> Table:
    """Every arm of an agreement: both means, their difference with its interval, and the finding."""

    def mean(accuracies: dict[int, float]) -> str:
        return f"{sum(accuracies.values()) / len(accuracies):.2f} ({len(accuracies)})"

    rows, cells = [], []
    for arm in found.arms:
        raw = {
            "network": arm.network,
            "variant": arm.variant,
            "ours": sum(arm.ours.values()) / len(arm.ours),
            "ours_seeds": len(arm.ours),
            "theirs": sum(arm.theirs.values()) / len(arm.theirs),
            "theirs_seeds": len(arm.theirs),
            "difference": arm.difference,
            "low": arm.low,
            "high": arm.high,
            "equal": arm.equal,
            "shared": arm.shared,
            "finding": arm.finding,
        }
        rows.append(raw)
        cells.append(
            [
                Cell(arm.network, style="code"),
                Cell(arm.variant, style="code"),
                Cell(mean(arm.ours), style="number"),
                Cell(mean(arm.theirs), style="number"),
                number(arm.difference, sign=True),
                interval(arm.low, arm.high, sign=True),
                Cell(f"{arm.equal} of {arm.shared}", style="number"),
                finding_chip(arm.finding),
            ]
        )
    caption = (
        f"{found.measure.capitalize()} in percent: mean (number of seeds). Difference: here minus reference, in "
        "points, with Student's two-sample interval; the intervals hold together at "
        f"{100 * CONFIDENCE:.0f} % (Bonferroni). Agrees: the interval lies within ±{MARGIN:g} points. Differs: it "
        "excludes zero and does not lie within. Equal: runs of the same seed whose weights are equal bit for bit."
    )
    headings = ["Network", "Variant", "Here", "Reference", "Difference", "Interval", "Equal", "Finding"]
    return Table("agreement", caption, headings, rows, cells)


def inference_table(result: dict[str, Any]) -> Table:
    """Every engine of the inference benchmark: speed, size, memory, and how many times ours it takes."""
    rows, cells = [], []
    for row in result["measured"]:
        ms, slower = row["milliseconds"], row["times_ours"]
        raw = {
            "engine": row["engine"],
            "threads": row["threads"],
            "batch": row["batch"],
            "milliseconds": ms["median"],
            "images_per_second": row["images_per_second"],
            "times_ours": slower["median"],
            "file_megabytes": row["file_bytes"] / 1e6,
            "peak_memory_megabytes": row["peak_memory_bytes"] / 1e6,
        }
        shown = [
            f"{ms['median']:.2f} ({ms['5 %']:.2f} to {ms['95 %']:.2f})",
            f"{row['images_per_second']:,.0f}",
            f"{slower['median']:.1f} ({slower['least']:.1f} to {slower['most']:.1f})",
            f"{raw['file_megabytes']:.2f}",
            f"{raw['peak_memory_megabytes']:,.0f}",
        ]
        rows.append(raw)
        cells.append(
            [Cell(row["engine"])]
            + [Cell(str(row[key]), style="number") for key in ("threads", "batch")]
            + [Cell(text, style="number") for text in shown]
        )
    packages = result["packages"]
    caption = (
        f"On {result['device']} ({', '.join(result['instructions'])}), OpenVINO {packages['openvino']}, ONNX Runtime "
        f"{packages['onnxruntime']}, torch {packages['torch']}, commit {result['commit'][:7]}. Engines in turn, "
        f"{result['rounds']} rounds, a process each, compared with the framework before they were timed. Milliseconds: "
        "median of all calls (5 % to 95 %). Times ours: median of the rounds' ratios (least to most). Memory: the "
        "process's peak, libraries counted in. Float and int8 networks have random weights."
    )
    headings = ["Engine", "Threads", "Batch", "ms a call", "Images/s", "Times ours", "File, MB", "Memory, MB"]
    return Table("inference", caption, headings, rows, cells)

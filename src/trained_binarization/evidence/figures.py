"""Figures: each drawn from frames and verdicts, saved as SVG and PNG with nothing in them that differs by run.

Widths are chosen so that lettering is legible in a column of 360 CSS pixels; legends lie below the axes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from trained_binarization.binarization.estimators import ESTIMATORS
from trained_binarization.evidence.agreement import MARGIN, Agreement
from trained_binarization.evidence.claims import Claims, Published
from trained_binarization.evidence.families import Effect
from trained_binarization.evidence.verdicts import Comparison, StudyVerdicts
from trained_binarization.files import written_whole
from trained_binarization.study import FULL_PRECISION, METHOD

WIDTH = 5.4  # inches
INK, MUTED, RULE, PAPER = "#1c2128", "#6a737d", "#d9dde2", "#ffffff"
"""Reports replace these by their own colours, which follow light and dark."""

PALETTE = sns.color_palette("colorblind").as_hex()
BLUE, ORANGE, GREEN, RED = PALETTE[0], PALETTE[1], PALETTE[2], PALETTE[3]

STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 11,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11.5,
    "figure.facecolor": PAPER,
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "legend.fontsize": 10.5,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "trained_binarization",
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 10.5,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 10.5,
}

ESTIMATOR_NAMES = {
    "long_tailed": "long-tailed (method)",
    "clipped_ste": "clipped STE",
    "clipped_ste_half": "clipped STE, half",
    "polynomial": "polynomial",
    "identity": "identity",
}


def plain(text: str) -> str:
    """Text as it is, on one line: matplotlib would read what stands between two dollars as mathematics."""
    return " ".join(text.split()).replace("$", r"\$")


def in_words(variant: str) -> str:
    """A variant's name as a label."""
    return " ".join({"ste": "STE", "l2": "L2"}.get(word, word) for word in variant.split("_"))


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write NAME.svg and NAME.png without dates or versions in them."""
    with written_whole(folder / f"{name}.svg") as path:
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    with written_whole(folder / f"{name}.png") as path:
        figure.savefig(path, format="png", dpi=200, metadata={"Software": None})


def _panels(rows: int, columns: int, height: float, **share: Any) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **share).flat)


def method() -> Figure:
    """Step and sign, and below each every estimator's derivative."""
    figure, (step, sign, step_slope, sign_slope) = _panels(2, 2, 5.6, sharex=True, sharey="row")
    x = np.linspace(-1.6, 1.6, 1281)
    for axes, low, title in ((step, 0, "activations: step"), (sign, -1, "weights: sign")):
        axes.plot([-1.6, 0], [low, low], color=BLUE, lw=2.4)
        axes.plot([0, 1.6], [1, 1], color=BLUE, lw=2.4)
        axes.plot([0, 0], [low, 1], color=BLUE, lw=1, ls=":")
        axes.set_title(title)
    step.set_ylabel("output in units of α")
    step.set_yticks([-1, 0, 1])
    colours = dict(zip(ESTIMATORS, (MUTED, ORANGE, RED, GREEN, BLUE), strict=True))
    styles = dict(zip(ESTIMATORS, (":", "--", (0, (1, 1)), "-.", "-"), strict=True))
    for axes, kind in ((step_slope, "step"), (sign_slope, "sign")):
        for name, estimator in ESTIMATORS.items():
            wide = 2.6 if name == "long_tailed" else 1.6
            y = getattr(estimator, kind)(x)
            axes.plot(x, y, color=colours[name], ls=styles[name], lw=wide, label=ESTIMATOR_NAMES[name])
        axes.set_xlabel("A" if kind == "step" else "W")
        axes.set_xticks([-1, 0, 1])
    step_slope.set_ylabel("derivative used")
    handles, labels = step_slope.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=2)
    return figure


def curves(history: pd.DataFrame, claims: Claims) -> Figure | None:
    """Accuracy by epoch, a panel a variant: mean over seeds, band from lowest to highest."""
    groups = [(str(n), str(v)) for n, v in history[["network", "variant"]].drop_duplicates().itertuples(index=False)]
    if not groups:
        return None
    rows = -(-len(groups) // 2)
    figure, panels = _panels(rows, 2, 0.9 + 1.75 * rows, sharey=True)
    scored = history.dropna(subset=["evaluation_accuracy"])
    several = history["network"].nunique() > 1
    for axes, (network, variant) in zip(panels, groups, strict=False):
        own = history[(history["network"] == network) & (history["variant"] == variant)]
        reference = scored[(scored["network"] == network) & (scored["variant"] == METHOD)]
        if variant != METHOD and not reference.empty:
            mean = reference.groupby("epoch")["evaluation_accuracy"].mean()
            axes.plot(mean.index, mean, color=MUTED, lw=1.1, label="evaluation, method")
        colour = INK if variant == FULL_PRECISION else BLUE if variant == METHOD else ORANGE
        band = {"x": "epoch", "errorbar": ("pi", 100), "ax": axes, "legend": False}
        sns.lineplot(own, y="train_accuracy", color=colour, ls="--", lw=1.2, err_kws={"alpha": 0.12, "lw": 0}, **band)
        evaluated = own.dropna(subset=["evaluation_accuracy"])
        sns.lineplot(evaluated, y="evaluation_accuracy", color=colour, err_kws={"alpha": 0.25, "lw": 0}, **band)
        title = in_words(variant)
        axes.set_title(f"{plain(claims.title(network))}: {title}" if several else title, fontsize=10.5)
        axes.set(xlabel="epoch", ylabel="accuracy, %")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    # The first epochs, far below the rest, would press the curves together.
    bottom = float(np.floor(history["train_accuracy"].quantile(0.1) / 10) * 10)
    panels[0].set_ylim(max(0.0, min(bottom, 90.0)), 100.5)
    for axes in panels[len(groups) :]:
        axes.set_visible(False)
    line = matplotlib.lines.Line2D
    handles = [
        line([], [], color=INK, label="evaluation"),
        line([], [], color=INK, ls="--", lw=1.2, label="training"),
        line([], [], color=MUTED, lw=1.1, label="evaluation, method"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def ablation(rows: Sequence[Comparison | Effect], claims: Claims) -> Figure | None:
    """Forest plot of differences, or of a family's contrasts: a dot a seed, mean, interval, the delta band shaded."""
    known = [row for row in rows if row.differences]
    if not known:
        return None
    family = isinstance(known[0], Effect)
    figure, (axes,) = _panels(1, 1, 1.5 + 0.5 * len(known))
    colours = {"helps": BLUE, "hurts": RED}
    several = len({row.network for row in known}) > 1
    delta = known[0].delta or 0.0
    axes.axvspan(-delta, delta, color=GREEN, alpha=0.14, lw=0)
    axes.axvline(0, color=MUTED, lw=1)
    for y, row in enumerate(known):
        colour = colours.get(row.outcome, INK)
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [y, y], color=colour, lw=2.2, solid_capstyle="butt")
        jitter = np.linspace(-0.16, 0.16, len(row.differences)) if len(row.differences) > 1 else [0.0]
        axes.scatter(
            row.differences, y + np.asarray(jitter), s=20, facecolors="none", edgecolors=colour, linewidths=0.9
        )
        axes.scatter([float(np.mean(row.differences))], [y], s=46, color=colour, marker="D", zorder=3)
    networks = [f"{plain(claims.title(row.network))}: " if several else "" for row in known]
    labels = [network + _difference(row) for network, row in zip(networks, known, strict=True)]
    axes.set_yticks(range(len(known)), labels)
    axes.set_ylim(len(known) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("difference, percentage points" if family else "method minus ablation, percentage points")
    line = matplotlib.lines.Line2D
    handles = [
        line([], [], color=INK, marker="D", label="mean, interval" if family else "mean, corrected interval"),
        line([], [], color=INK, marker="o", mfc="none", ls="", label="one seed"),
        matplotlib.patches.Patch(color=GREEN, alpha=0.14, lw=0, label=f"±{delta:g} points"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.0, handletextpad=0.5)
    return figure


def _difference(row: Comparison | Effect) -> str:
    """A row's label: the ablation, or both arms of a contrast."""
    if isinstance(row, Comparison):
        return in_words(row.ablation)
    return f"{in_words(row.plus)} − {in_words(row.minus)}"


def alphas(history: pd.DataFrame, claims: Claims) -> Figure | None:
    """The method's learned scaling factors by epoch and layer: median over seeds, band over all of them.

    Weights' factors on a log scale: one seed in a few throws one up by orders of magnitude (docs/method.md).
    """
    own = history[history["variant"] == METHOD]
    kinds = {"alpha_weight.": "of weights", "alpha_activation.": "of activations"}
    panels = []
    for network in own["network"].unique():
        rows = own[own["network"] == network].dropna(axis="columns", how="all")
        for prefix, title in kinds.items():
            layers = [column for column in rows.columns if column.startswith(prefix)]
            if layers:
                panels.append((str(network), prefix, title, layers, rows))
    if not panels:
        return None
    several = len({network for network, *_ in panels}) > 1
    most = max(len(layers) for _, _, _, layers, _ in panels)
    longest = max(len(layer) - len(prefix) for _, prefix, _, layers, _ in panels for layer in layers)
    columns = 3 if longest > 8 else 5
    figure, axes_list = _panels(len(panels), 1, 0.8 + 2.5 * len(panels) + 0.25 * (most // columns))
    for axes, (network, prefix, title, layers, rows) in zip(axes_list, panels, strict=True):
        long = rows.melt(["epoch", "seed"], layers, var_name="layer", value_name="alpha")
        long["layer"] = long["layer"].str.removeprefix(prefix)
        # The ends of the scale would vanish on a dark or a light page.
        colours = matplotlib.colormaps["viridis"](np.linspace(0.25, 0.78, len(layers)))
        sns.lineplot(
            long,
            x="epoch",
            y="alpha",
            hue="layer",
            palette=[tuple(colour) for colour in colours],
            estimator="median",
            errorbar=("pi", 100),
            err_kws={"alpha": 0.2, "lw": 0},
            ax=axes,
        )
        if prefix == "alpha_weight.":
            axes.set_yscale("log")
        axes.set_title(
            f"{plain(claims.title(network))}: scaling factors {title}" if several else f"scaling factors {title}"
        )
        axes.set(xlabel="", ylabel="α")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        last = axes is axes_list[-1] or several
        handles, labels = axes.get_legend_handles_labels()
        axes.legend_.remove()  # type: ignore[union-attr]
        if last:
            axes.set_xlabel("epoch")
            axes.legend(
                handles,
                labels,
                loc="upper center",
                bbox_to_anchor=(0.5, -0.26),
                ncols=min(columns, len(labels)),
                columnspacing=1.0,
                handlelength=1.4,
                handletextpad=0.5,
            )
    return figure


def _spread(values: list[float], gap: float) -> list[float]:
    """Positions for labels as near their values as a least distance allows (values ascending)."""
    positions = list(values)
    for _ in range(200):
        for i in range(1, len(positions)):
            lacking = gap - (positions[i] - positions[i - 1])
            if lacking > 1e-9:
                positions[i] += lacking / 2
                positions[i - 1] -= lacking / 2
    return positions


def _label_published(axes: Axes, rows: list[Published], sizes: list[float], gap: float) -> None:
    """Name published points: float ones to their left, binary ones to their right, without overlaps."""
    for left in (True, False):
        chosen = sorted(
            (
                (row.top1, size, plain(row.name))
                for row, size in zip(rows, sizes, strict=True)
                if (row.bits == "32/32") == left
            ),
        )
        for (value, size, name), y in zip(chosen, _spread([one[0] for one in chosen], gap), strict=True):
            place = size * (0.8 if left else 1.35)
            axes.plot([size, place], [value, y], color=MUTED, lw=0.6)
            text = name.replace("full precision (", "").rstrip(")") if left else name
            axes.text(
                place * (0.97 if left else 1.03), y, text, ha="right" if left else "left", va="center", fontsize=9.5
            )


def size(found: StudyVerdicts, claims: Claims) -> Figure | None:
    """Accuracy against model size; on the paper's data set with the published points, as printed there."""
    ours = [row for row in found.accuracies if row.variant in (FULL_PRECISION, METHOD) and row.bytes]
    if not ours:
        return None
    published = [row for row in claims.published if row.dataset == found.dataset and row.network in found.networks]
    figure, (axes,) = _panels(1, 1, 5.2 if published else 3.6)
    sizes = []
    for row in published:
        facts = claims.networks[row.network]
        sizes.append((facts.bytes_float if row.bits == "32/32" else facts.bytes_one_bit) / 1e6)
    if published:
        bits = {"1/1": "o", "1/2": "s", "32/32": "o"}
        for row, megabytes in zip(published, sizes, strict=True):
            axes.scatter(
                megabytes, row.top1, s=26, color=PAPER, edgecolors=MUTED, marker=bits.get(row.bits, "o"), zorder=3
            )
        values = [row.top1 for row in published] + [row.mean for row in ours]
        _label_published(axes, published, sizes, gap=(max(values) - min(values) + 1) / 22)
    shapes = {FULL_PRECISION: ("D", INK), METHOD: ("D", BLUE)}
    kind = " (stand-in)" if found.stand_in else ""
    several = len(found.networks) > 1
    for one in ours:
        marker, colour = shapes[one.variant]
        x = (one.bytes or 0) / 1e6
        if one.low is not None and one.high is not None:
            axes.plot([x, x], [one.low, one.high], color=colour, lw=2)
        name = f"{plain(claims.title(one.network))}, " if several else ""
        name += f"{in_words(one.variant)}{kind}"
        axes.scatter(x, one.mean, s=58, color=colour, marker=marker, zorder=4, label=name)
    axes.set_xscale("log")
    every = sizes + [(row.bytes or 0) / 1e6 for row in ours]
    axes.set_xlim(min(every) / 1.8, max(every) * 1.8)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="model size, MB (log scale)", ylabel="top-1 accuracy, %")
    handles, labels = axes.get_legend_handles_labels()
    if published:
        line = matplotlib.lines.Line2D
        for marker, text in (("o", "as printed (bits 1/1 or 32/32)"), ("s", "as printed (bits 1/2)")):
            if marker == "o" or any(row.bits == "1/2" for row in published):
                handles.append(line([], [], color=MUTED, marker=marker, mfc=PAPER, ls=""))
                labels.append(text)
    figure.legend(
        handles, labels, loc="outside lower center", ncols=1 if several and not published else 2, columnspacing=1.2
    )
    return figure


def agreement(found: Agreement) -> Figure:
    """Every run of both sides, arm by arm, and the difference of the means with its interval beside it."""
    arms = found.arms[::-1]
    figure, (runs, differences) = _panels(1, 2, 0.5 * len(arms) + 1.5, sharey=True)
    for y, arm in enumerate(arms):
        for accuracies, height, colour, label in (
            (arm.theirs, y - 0.14, MUTED, "reference"),
            (arm.ours, y + 0.14, BLUE, "here"),
        ):
            values = list(accuracies.values())
            runs.scatter(values, [height] * len(values), s=20, color=colour, alpha=0.6, lw=0, label=label)
            runs.scatter(float(np.mean(values)), height, s=120, color=colour, marker="|", lw=2)
        colour = {"differs": RED, "undecided": ORANGE}.get(arm.finding, BLUE)
        if arm.low is not None and arm.high is not None:
            differences.plot([arm.low, arm.high], [y, y], color=colour, lw=2)
        differences.scatter(arm.difference, y, s=40, color=colour, zorder=4)
    differences.axvspan(-MARGIN, MARGIN, color=RULE, alpha=0.5, lw=0)
    differences.axvline(0, color=MUTED, lw=1)
    several = len({arm.network for arm in arms}) > 1
    names = [f"{in_words(arm.variant)}{f', {plain(arm.network)}' if several else ''}" for arm in arms]
    runs.set_yticks(range(len(arms)), names)
    runs.set(xlabel=f"{found.measure}, %", ylim=(-0.6, len(arms) - 0.4))
    differences.set(xlabel="difference, points")
    handles, labels = runs.get_legend_handles_labels()
    figure.legend(handles[1::-1], labels[1::-1], loc="outside lower center", ncols=2)
    return figure


def inference(result: dict[str, Any]) -> Figure:
    """Milliseconds a call of every engine, one image at a time and one thread: median, 5 % to 95 %."""
    rows = [row for row in result["measured"] if row["threads"] == 1 and row["batch"] == 1][::-1]
    figure, (axes,) = _panels(1, 1, 0.42 * len(rows) + 1.1)
    for y, row in enumerate(rows):
        ms = row["milliseconds"]
        colour = BLUE if row["engine"].endswith("(ours)") else MUTED
        axes.plot([ms["5 %"], ms["95 %"]], [y, y], color=colour, lw=2)
        axes.scatter(ms["median"], y, s=46, color=colour, zorder=4)
        axes.annotate(f"{ms['median']:.2g}", (ms["95 %"], y), (6, -3.5), textcoords="offset points", color=INK)
    axes.set_yticks(range(len(rows)), [plain(row["engine"]) for row in rows])
    axes.set_xscale("log")
    axes.set_xlim(
        min(row["milliseconds"]["5 %"] for row in rows) / 1.5, max(r["milliseconds"]["95 %"] for r in rows) * 2
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="ms an image (log scale)")
    axes.grid(visible=False, axis="y")
    return figure


def draw_one(make: Callable[[], Figure | None], folder: Path, name: str) -> bool:
    """Draw and save one figure in our style; whether there was data for it."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # nobody's own settings enter
        matplotlib.rcParams.update(STYLE)
        figure = make()
        if figure is not None:
            save(figure, folder, name)
        return figure is not None


def draw(found: StudyVerdicts, history: pd.DataFrame, claims: Claims, folder: Path) -> list[str]:
    """Draw every figure that there is data for; the names of those drawn."""
    figures: dict[str, Callable[[], Figure | None]] = {
        "method": method,
        "ablation": lambda: ablation(found.family or found.comparisons, claims),
        "curves": lambda: curves(history, claims),
        "alphas": lambda: alphas(history, claims),
        "size": lambda: size(found, claims),
    }
    return [name for name, make in figures.items() if draw_one(make, folder, name)]

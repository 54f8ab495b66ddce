"""Does the fast path train the same networks? Its records beside those of the same runs trained the plain way."""

from pathlib import Path

from trained_binarization.errors import UserError
from trained_binarization.evidence.markdown import escape
from trained_binarization.evidence.statistics import t_interval
from trained_binarization.records import record_of, run_folder
from trained_binarization.study import Study

CONFIDENCE = 0.95

Pairs = dict[str, list[tuple[int, float, float]]]
"""By variant: (seed, accuracy of the fast run, accuracy of the plain run), in percent."""


def differences(fast: Study, plain: Study, results: Path, plain_results: Path) -> Pairs:
    """Each of plain's runs beside the fast one; UserError where one is missing or differs in more than precision."""
    found: Pairs = {}
    for run in plain.runs():
        ours, theirs = record_of(results, fast, run), record_of(plain_results, plain, run)
        keys = ours.settings.keys() | theirs.settings.keys()
        differing = {key for key in keys if ours.settings.get(key) != theirs.settings.get(key)} - {"autocast"}
        differing |= {"data"} if ours.data_checksum != theirs.data_checksum else set()
        if differing:
            folder = run_folder(plain_results, plain, run)
            raise UserError(f"{folder}: found another {', '.join(sorted(differing))}; allowed: that of {fast.study}")
        found.setdefault(run.variant, []).append((run.seed, ours.last.accuracy, theirs.last.accuracy))
    return found


def table(fast: Study, plain: Study, results: Path, plain_results: Path) -> str:
    """Markdown: every pair, and the interval of their mean difference."""
    lines = [
        "# The fast path beside the plain one",
        "",
        f"`{fast.study}` is trained with {fast.compute.how}; `{plain.study}`, the same runs by the same settings and "
        f"seeds, with {plain.compute.how}. Accuracy in percent after the last epoch; the interval is Student's of the "
        f"mean of the differences, {100 * CONFIDENCE:.0f} %. Both are stand-ins: {escape(fast.stand_in)}.",
        "",
        "| variant | seed | fast | plain | difference, points |",
        "|---|---|---|---|---|",
    ]
    summary = []
    for variant, pairs in differences(fast, plain, results, plain_results).items():
        for seed, ours, theirs in pairs:
            lines.append(f"| {variant} | {seed} | {ours:.2f} | {theirs:.2f} | {ours - theirs:+.2f} |")
        interval = t_interval([ours - theirs for _, ours, theirs in pairs], CONFIDENCE)
        same = "no difference shown" if interval.low <= 0 <= interval.high else "a difference"
        summary.append(
            f"- {variant}: mean difference {interval.mean:+.2f} points, "
            f"from {interval.low:+.2f} to {interval.high:+.2f}: {same}."
        )
    return "\n".join([*lines, "", *summary]) + "\n"

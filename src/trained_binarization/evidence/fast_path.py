"""Does the fast path train the same networks? Its records beside those of the same runs trained the plain way."""

from pathlib import Path

from trained_binarization.errors import UserError
from trained_binarization.evidence.statistics import t_interval
from trained_binarization.records import Record, read_data, run_folder, status
from trained_binarization.study import Run, Study

CONFIDENCE = 0.95


Pairs = dict[str, list[tuple[int, float, float]]]
"""By variant: (seed, accuracy of the fast run, accuracy of the plain run), in percent."""


def _record(study: Study, run: Run, results: Path) -> Record:
    state, record = status(results, study, run, read_data(results, study).checksum)
    if state != "done" or record is None:
        raise UserError(f"{run_folder(results, study, run)}: found a run that is {state}; allowed: a finished one")
    return record


def differences(fast: Study, plain: Study, results: Path, plain_results: Path) -> Pairs:
    """Each of plain's runs beside the fast one; UserError where one is missing or differs in more than precision."""
    found: Pairs = {}
    for run in plain.runs():
        ours, theirs = _record(fast, run, results), _record(plain, run, plain_results)
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
        f"`{fast.study}` is trained with {_how(fast)}; `{plain.study}`, the same runs by the same settings and seeds, "
        f"with {_how(plain)}. Accuracy in percent after the last epoch; the interval is Student's of the mean of the "
        f"differences, {100 * CONFIDENCE:.0f} %.",
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


def _how(study: Study) -> str:
    compute = study.compute
    precision = "float32" if compute.autocast == "none" else compute.autocast
    layout = "channels last" if compute.channels_last else "default layout"
    return f"{precision}, {layout}, {'compiled' if compute.compile else 'eager'}"

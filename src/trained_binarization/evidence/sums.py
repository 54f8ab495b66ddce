"""results/SHA256SUMS: the hash of every file of evidence, in the format of the program sha256sum."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from trained_binarization import files
from trained_binarization.errors import UserError, shown
from trained_binarization.study import LOCAL

NAME = "SHA256SUMS"

WHOLE = ("report.html", "report.md", "*.csv")
BENCHMARKS = ("*.json", "*.md", "*.png", "*.svg", "fast-path/params.yaml", "fast-path/table.md")
STUDY = (
    "data.json",
    "metrics.json",
    "verdicts.json",
    "report.html",
    "report.md",
    "tables/*.csv",
    "tables/*.md",
    "figures/*.png",
    "figures/*.svg",
    "agreement/agreement.*",
    "runs/*/*/*/record.json",
    "runs/*/*/*/history.csv",
    "runs/*/*/*/signs.safetensors",
    "deploy/*/card.md",
    "deploy/*/deploy.json",
    "deploy/*/*.bin",
    "deploy/*/*.xml",
)
"""The files of a study that git holds. Weights, checkpoints and diverged.json are not among them: see .gitignore."""

PLAIN = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)*", re.ASCII)
"""The paths that the product makes below results/. In other paths sha256sum escapes some characters."""
LINE = re.compile(rf"([0-9a-f]{{64}})  ({PLAIN.pattern})", re.ASCII)


def _evidence(results: Path) -> list[str]:
    """The files of evidence that are there: their paths relative to results/, sorted."""

    def found() -> Iterator[Path]:
        for folder, patterns in [
            (results, WHOLE),
            (results / "benchmarks", BENCHMARKS),
            *((path, STUDY) for path in (results / "benchmarks" / "fast-path").glob("*/")),
            *((path, STUDY) for path in results.glob("*/") if path.name not in {LOCAL, "benchmarks"}),
        ]:
            for pattern in patterns:
                yield from folder.glob(pattern)

    names = {path.relative_to(results).as_posix() for path in found() if path.is_file()}
    return sorted(name for name in names if PLAIN.fullmatch(name))


def write_sums(results: Path) -> None:
    """Write results/SHA256SUMS from the files that are there now, whether they are in git or not."""
    lines = [f"{files.sha256(results / name)}  {name}\n" for name in _evidence(results)]
    files.write_text(results / NAME, "".join(lines))


def _read_sums(path: Path) -> dict[str, str]:
    """The listed paths with their hashes; UserError where the list is damaged."""
    remedy = f"restore it: git checkout -- {path}; or write it anew: trained-binarization report --replication"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}; {remedy}") from None
    listed: dict[str, str] = {}
    for number, line in enumerate(lines[:-1] or [""], start=1):
        match = LINE.fullmatch(line)
        if match is None or match[2] in listed:
            raise UserError(f"{path}: line {number}: found {shown(line)}; allowed: a hash and a new path; {remedy}")
        listed[match[2]] = match[1]
    if lines[-1]:
        raise UserError(f"{path}: found no end of the last line, {shown(lines[-1])}; {remedy}")
    return listed


def check_sums(results: Path) -> list[str]:
    """One line for each file that is not as results/SHA256SUMS says, sorted by path; none where there is no list.

    A file that is not listed is a fault where other files of its study are listed. Other studies are not checked.
    """

    def study(name: str) -> str:
        return PurePosixPath(name).parts[0] if "/" in name else ""

    path = results / NAME
    if not path.exists():
        return []
    listed = _read_sums(path)
    faults = {}
    for name, sha256 in listed.items():
        if not (results / name).is_file():
            faults[name] = f"is missing, but listed in {path}"
        elif files.sha256(results / name) != sha256:
            faults[name] = f"its content is not what {path} lists"
    studies = {study(name) for name in listed}
    for name in _evidence(results):
        if name not in listed and study(name) in studies:
            faults[name] = f"is there, but not listed in {path}"
    return [f"{results / name}: {fault}" for name, fault in sorted(faults.items())]


def require_sums(results: Path) -> None:
    """UserError that names the first file that is not as results/SHA256SUMS says, and how many there are."""
    faults = check_sums(results)
    if faults:
        many = f" (the first of {len(faults)} such files)" if len(faults) > 1 else ""
        raise UserError(
            f"{faults[0]}{many}; undo the change: git checkout -- {results} (and delete what was added); "
            "or, if it was meant, list it: trained-binarization report --replication"
        )

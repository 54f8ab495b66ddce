"""Does hardware move results? The same study trained with several instruction sets and precisions, side by side."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from trained_binarization import files
from trained_binarization.evidence.agreement import Agreement, Evidence, compare, read_evidence
from trained_binarization.evidence.markdown import escape
from trained_binarization.evidence.tables import DASH, Cell, Table, finding_chip, interval, number

NAME = "hardware.json"


class Hardware(BaseModel):
    """results/benchmarks/hardware.json: one study's evidence by how it was computed; the first is compared with."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    sides: dict[str, Evidence]

    def comparisons(self) -> dict[str, Agreement]:
        """Every other side against the first, by the rule of agreement.py."""
        (_, first), *others = self.sides.items()
        return {name: compare(side, first) for name, side in others}


def table(found: Hardware) -> Table:
    """A row a side: its seeds, the verdict, and the arm whose mean differs most, with its simultaneous interval."""
    rows, cells = [], []
    first = next(iter(found.sides))
    for name, one in found.comparisons().items():
        widest = max(one.arms, key=lambda arm: abs(arm.difference))
        seeds = sorted({len(arm.ours) for arm in one.arms})
        equal, shared = (sum(getattr(arm, key) for arm in one.arms) for key in ("equal", "shared"))
        raw = {"side": name, "verdict": one.verdict, "arms": len(one.arms), "equal": equal, "shared": shared}
        rows.append(raw | {"widest": widest.variant, "difference": widest.difference})
        cells.append(
            [
                Cell(name),
                Cell(", ".join(one.ours_on)),
                Cell(f"{len(one.arms)}, {' or '.join(map(str, seeds))} seeds each"),
                finding_chip(one.verdict),
                Cell(widest.variant, style="code"),
                number(widest.difference, sign=True),
                interval(widest.low, widest.high, sign=True) if widest.low is not None else Cell(DASH, style="number"),
                Cell(f"{equal} of {shared}", style="number"),
            ]
        )
    caption = (
        f"Each against {first} on {', '.join(found.sides[first].devices)}, ten seeds an arm, by the rule of the "
        "agreement (docs/running.md). Widest: the arm whose mean differs most; in points, with its simultaneous "
        "interval. Equal: runs of the same seed with the same weights, bit for bit."
    )
    headings = ["Computed with", "On", "Arms", "Verdict", "Widest", "Difference", "Interval", "Equal"]
    return Table("hardware", caption, headings, rows, cells)


def write_hardware(sides: Mapping[str, Path], study: str, folder: Path) -> Table:
    """Gather the study's runs from each side's results folder into FOLDER/hardware.json; the table over them."""
    found = Hardware(sides={name: read_evidence(path, study) for name, path in sides.items()})
    files.write_json(folder / NAME, found.model_dump(), indent=1)
    made = table(found)
    files.write_text(folder / "hardware.md", f"{made.markdown()}\n{escape(made.caption)}\n")
    return made


def read_hardware(folder: Path) -> Hardware:
    """What was gathered."""
    remedy = "make it anew with: trained-binarization benchmark hardware"
    return files.read_model(folder / NAME, Hardware, remedy)

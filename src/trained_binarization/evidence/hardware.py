"""Does hardware move results? The same study trained with several instruction sets and precisions, side by side."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from trained_binarization import files
from trained_binarization.evidence.agreement import Agreement, Evidence, compare, read_evidence
from trained_binarization.evidence.markdown import escape
from trained_binarization.evidence.tables import Cell, Table, finding_chip, interval, number
from trained_binarization.records import canonical

NAME = "hardware.json"


class Hardware(BaseModel):
    """results/benchmarks/hardware.json: one study's evidence by how it was computed."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    sides: dict[str, Evidence]

    def comparisons(self) -> dict[tuple[str, str], Agreement]:
        """(side, what it is compared with): the first side of its settings; for that one, the first of all."""
        names = list(self.sides)
        made = {}
        for name in names[1:]:
            alike = next(one for one in names if self._settings(one) == self._settings(name))
            against = names[0] if alike == name else alike
            made[name, against] = compare(self.sides[name], self.sides[against])
        return made

    def _settings(self, name: str) -> str:
        """The settings of a side's first arm, in which sides of one study can differ."""
        return canonical(self.sides[name].arms[0].settings)


def table(found: Hardware) -> Table:
    """A row a comparison: the verdict, and the arm whose mean differs most, with its simultaneous interval."""
    rows, cells = [], []
    for (name, against), one in found.comparisons().items():
        widest = max(one.arms, key=lambda arm: abs(arm.difference))
        seeds = " and ".join(str(max(len(getattr(arm, side)) for arm in one.arms)) for side in ("ours", "theirs"))
        raw = {"side": name, "against": against, "verdict": one.verdict, "arms": len(one.arms), "seeds": seeds}
        rows.append(raw | {"widest": widest.variant, "difference": widest.difference})
        cells.append(
            [
                Cell(name),
                Cell(against),
                Cell(f"{len(one.arms)} arms, {seeds} seeds"),
                finding_chip(one.verdict),
                Cell(widest.variant, style="code"),
                number(widest.difference, sign=True),
                interval(widest.low, widest.high, sign=True),
            ]
        )
    machines = "; ".join(f"{name}: {', '.join(side.devices)}" for name, side in found.sides.items())
    caption = (
        "By the rule of the agreement (docs/running.md). Widest: the arm whose mean differs most, in points, with its "
        f"simultaneous interval. {machines}."
    )
    headings = ["Computed with", "Against", "Runs", "Verdict", "Widest", "Difference", "Interval"]
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

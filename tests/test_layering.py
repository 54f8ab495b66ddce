"""Who may import whom: the library knows no replication, and no import runs up."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import REPOSITORY

PACKAGE = "trained_binarization"
SOURCE = REPOSITORY / "src" / PACKAGE
FILES = sorted(SOURCE.rglob("*.py"))

# Rooms from the bottom up; those on one floor do not know each other. Every other module is shared by all but the
# library: study, records, settings, files and so on.
LIBRARY = ["binarization", "networks"]
FLOORS = [["evidence", "datasets"], ["training"], ["deploy"], ["benchmarks"], ["cli"], ["__main__"]]


def room(module: str) -> str:
    """The room of a module of the package, such as `training` of trained_binarization.training.loop."""
    return [*module.split("."), "__init__"][1]


def imported(source: str) -> Iterator[str]:
    """Every module that a source text imports, in functions and for type checks, too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            assert node.module is not None
            yield from (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == PACKAGE else [node.module]
            )


def faults(module: str, source: str) -> list[str]:
    """What a module imports and must not."""
    own, found = room(module), []
    height = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    for name in imported(source):
        inside, other = name.split(".")[0] == PACKAGE, room(name)
        if own in LIBRARY:
            below = LIBRARY[: LIBRARY.index(own) + 1]
            wrong = other not in below if inside else name.split(".")[0] not in {"torch", *sys.stdlib_module_names}
        else:
            up = height.get(other, -1) >= height.get(own, -1) and other in height
            wrong = inside and other != own and up
        if wrong:
            found.append(name)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_import_runs_up_and_the_library_knows_torch_alone(path: Path) -> None:
    module = ".".join([PACKAGE, *path.relative_to(SOURCE).with_suffix("").parts])
    assert faults(module, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("binarization.layers", "from trained_binarization.study import Study"),
        ("binarization.layers", "from trained_binarization.networks import build"),
        ("binarization.method", "import pydantic"),
        ("networks.vgg_small", "def f():\n    from trained_binarization.errors import UserError"),
        ("networks.summary", "from trained_binarization import records"),
        ("study", "from trained_binarization.training.loop import Trainer"),
        ("datasets.images", "from trained_binarization.evidence import tables"),
        ("training.loop", "from trained_binarization.deploy.fold import Affine"),
        ("evidence.tables", "if TYPE_CHECKING:\n    from trained_binarization.cli import app"),
    ],
)
def test_an_import_that_runs_up_is_found(module: str, source: str) -> None:
    assert len(faults(f"{PACKAGE}.{module}", source)) == 1

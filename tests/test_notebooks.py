"""The notebooks: executed again from nothing, and what is landed of them."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbconvert.preprocessors import ExecutePreprocessor
from nbformat import NotebookNode

from helpers import REPOSITORY

NOTEBOOKS = ["1-method", "2-results"]


def read(folder: Path, name: str) -> NotebookNode:
    return nbformat.read(folder / "notebooks" / f"{name}.ipynb", as_version=4)


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def text(notebook: NotebookNode) -> str:
    """Everything that outputs say in letters."""
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs(notebook))


def pictures(notebook: NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what the notebooks need, without results."""
    for folder in ("notebooks", "studies"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    shutil.copyfile(REPOSITORY / "claims.yaml", tmp_path / "claims.yaml")
    (tmp_path / "results").mkdir()
    monkeypatch.delenv("STUDY", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


@pytest.fixture
def execute(house: Path) -> Callable[[str, Path], NotebookNode]:
    def executed(name: str, started_in: Path) -> NotebookNode:
        notebook = read(house, name)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        ExecutePreprocessor(timeout=50).preprocess(notebook, {"metadata": {"path": str(started_in)}})
        assert [output for output in outputs(notebook) if output.get("name") == "stderr"] == []
        return notebook

    return executed


def test_the_method(house: Path, execute: Callable[[str, Path], NotebookNode]) -> None:
    notebook = execute("1-method", house / "notebooks")
    assert pictures(notebook) == 6


def test_results_of_a_study(
    house: Path, execute: Callable[[str, Path], NotebookNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "tests" / "evidence")
    from synthetic import quick_study, write_results

    write_results(quick_study(), house / "results")
    notebook = execute("2-results", house)
    assert "21 of 21 runs are done" in text(notebook)
    assert pictures(notebook) == 4


def test_the_landed_results_follow_from_the_records(house: Path, execute: Callable[[str, Path], NotebookNode]) -> None:
    small_files = shutil.ignore_patterns("*.safetensors", "*.partial", "checkpoints")
    shutil.copytree(REPOSITORY / "results" / "cifar10-cpu", house / "results" / "cifar10-cpu", ignore=small_files)
    notebook, landed = execute("2-results", house), read(REPOSITORY, "2-results")
    again = "execute it again: jupyter nbconvert --execute --inplace notebooks/2-results.ipynb"
    assert text(notebook) == text(landed), again
    assert pictures(notebook) == pictures(landed), again


def test_a_study_without_records(
    house: Path, execute: Callable[[str, Path], NotebookNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDY", "cifar10-cpu")
    notebook = execute("2-results", house / "notebooks")
    assert "There are no records to show yet; the first is made by: trained-binarization pretrain" in text(notebook)
    assert pictures(notebook) == 0


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_landed_as_executed(name: str) -> None:
    notebook = read(REPOSITORY, name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert outputs(notebook)
    assert {output.output_type for output in outputs(notebook)} <= {"execute_result", "display_data", "stream"}
    assert [output for output in outputs(notebook) if output.get("name") == "stderr"] == []
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_landed_small_and_of_no_machine(name: str) -> None:
    path = REPOSITORY / "notebooks" / f"{name}.ipynb"
    assert path.stat().st_size < 1_000_000
    sources = "\n".join(cell.source for cell in read(REPOSITORY, name).cells)
    assert re.findall(r"/(?:home|root|work|tmp|Users)/", sources + text(read(REPOSITORY, name))) == []

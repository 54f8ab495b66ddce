"""A commit is named only where git tracks the files that run; each case runs a copy of the package in a process."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helpers import REPOSITORY
from trained_binarization.provenance import provenance

MODULE = Path("src/trained_binarization/files.py")
IDENTITY = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
PRINT = "import json; from trained_binarization.provenance import provenance; print(json.dumps(provenance()))"


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-c", "protocol.file.allow=always", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | IDENTITY,
    ).stdout.strip()


def copy_package(to: Path) -> None:
    """The package's sources that provenance needs, and a few more."""
    source = REPOSITORY / "src" / "trained_binarization"
    (to / "trained_binarization").mkdir(parents=True)
    for name in ("__init__.py", "errors.py", "files.py", "provenance.py", "evidence/report.css"):
        (to / "trained_binarization" / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, to / "trained_binarization" / name)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository like ours with one commit."""
    folder = tmp_path / "clone"
    copy_package(folder / "src")
    (folder / "requirements.lock").write_text("torch==2.14.1\n", encoding="utf-8")
    (folder / "README.md").write_text("A title.\n", encoding="utf-8")
    (folder / ".gitignore").write_text("__pycache__/\n.venv/\nlocal_*.py\n", encoding="utf-8")
    git(tmp_path, "init", "-q", "-b", "main", "clone")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "all")
    return folder


@dataclass(frozen=True)
class Found:
    """What the package says of itself."""

    commit: str
    clean: bool | None
    told: str


def found(source: Path, folder: Path | None = None, **environment: str) -> Found:
    """Provenance of the package below `source`, called in a folder (by default the source's)."""
    clear = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "SOURCE_"))}
    done = subprocess.run(
        [sys.executable, "-c", PRINT],
        cwd=folder or source,
        check=False,
        capture_output=True,
        text=True,
        env=clear | {"PYTHONPATH": str(source)} | environment,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return Found(said["commit"], said["clean"], done.stderr)


def unknown(one: Found, *fragments: str) -> None:
    """Nothing is named, and one line says why."""
    assert (one.commit, one.clean) == ("unknown", None)
    assert one.told.startswith("commit unknown: ")
    assert one.told.count("\n") == 1
    for fragment in fragments:
        assert fragment in one.told


def head(folder: Path) -> str:
    return git(folder, "rev-parse", "HEAD")


def test_a_clone_names_its_commit(clone: Path, tmp_path: Path) -> None:
    assert found(clone / "src") == Found(head(clone), True, "")
    assert found(clone / "src", tmp_path) == Found(head(clone), True, "")


def changed(name: Path | str, text: str = "\n# changed\n") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write(text)

    return change


def staged(folder: Path) -> None:
    changed(MODULE)(folder)
    git(folder, "add", "-A")


def overlooked(folder: Path) -> None:
    git(folder, "update-index", "--assume-unchanged", str(MODULE))
    changed(MODULE)(folder)


def skipped(folder: Path) -> None:
    git(folder, "update-index", "--skip-worktree", str(MODULE))
    changed(MODULE)(folder)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(changed(MODULE), id="a module changed"),
        pytest.param(staged, id="a change staged"),
        pytest.param(overlooked, id="a change that the index overlooks"),
        pytest.param(skipped, id="a change in a file that the index skips"),
        pytest.param(changed("src/trained_binarization/other.py"), id="a module more"),
        pytest.param(changed("src/trained_binarization/local_other.py"), id="a module more, ignored"),
        pytest.param(lambda folder: (folder / MODULE).unlink(), id="a module less"),
        pytest.param(changed("src/trained_binarization/evidence/report.css"), id="a file that is read changed"),
        pytest.param(changed("requirements.lock"), id="the lock changed"),
        pytest.param(lambda folder: (folder / "requirements.lock").unlink(), id="no lock"),
    ],
)
def test_what_differs_from_the_commit_is_not_clean(change: Callable[[Path], None], clone: Path) -> None:
    change(clone)
    assert found(clone / "src") == Found(head(clone), False, "")


def test_other_files_may_differ(clone: Path) -> None:
    changed("README.md")(clone)
    changed("notes.txt")(clone)
    assert found(clone / "src") == Found(head(clone), True, "")


@pytest.mark.parametrize("ignored", [True, False])
def test_an_installed_copy_is_not_the_work_tree_around_it(ignored: bool, clone: Path) -> None:
    """As `pip install .` into an environment inside the clone does; then a change, committed."""
    installed = clone / ".venv" / "lib" / "python3.11" / "site-packages"
    copy_package(installed)
    if not ignored:
        (clone / ".gitignore").unlink()
    changed(MODULE)(clone)
    git(clone, "commit", "-q", "-m", "changed", str(MODULE))
    unknown(found(installed, clone), f"are in {installed}/trained_binarization", "pip install -e .")
    assert found(clone / "src").commit == head(clone)


def test_a_copy_outside_of_any_repository_is_unknown(tmp_path: Path) -> None:
    copy_package(tmp_path / "site-packages")
    unknown(found(tmp_path / "site-packages"), "not a git repository")


def test_a_repository_without_a_commit_is_unknown(tmp_path: Path) -> None:
    copy_package(tmp_path / "src")
    git(tmp_path, "init", "-q")
    unknown(found(tmp_path / "src"), "HEAD")


def test_gits_variables_of_a_hook_name_another_repository(clone: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "other")
    hook = {"GIT_DIR": str(other / ".git"), "GIT_WORK_TREE": str(other), "GIT_INDEX_FILE": str(other / ".git/index")}
    assert found(clone / "src", **hook) == Found(head(clone), True, "")


def test_shallow_clones_worktrees_and_submodules_name_their_own_commit(clone: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{clone}", "shallow")
    git(clone, "worktree", "add", "-q", "--detach", str(tmp_path / "worktree"))
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q")
    git(outer, "submodule", "--quiet", "add", str(clone), "inner")
    git(outer, "commit", "-q", "-m", "outer")
    assert head(outer) != head(clone)
    for folder in (tmp_path / "shallow", tmp_path / "worktree", outer / "inner"):
        assert found(folder / "src") == Found(head(clone), True, "")


def test_line_ends_that_git_converts_are_no_change(clone: Path, tmp_path: Path) -> None:
    git(tmp_path, "-c", "core.autocrlf=true", "clone", "-q", "-c", "core.autocrlf=true", str(clone), "crlf")
    assert b"\r\n" in (tmp_path / "crlf" / MODULE).read_bytes()
    assert found(tmp_path / "crlf" / "src") == Found(head(clone), True, "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_clone_of_another_user_that_git_refuses_is_unknown(clone: Path) -> None:
    for path in [clone, *clone.rglob("*")]:
        os.chown(path, 12345, 12345)
    unknown(found(clone / "src"), "dubious ownership")
    allowed = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    assert found(clone / "src", **allowed).clean is True


def test_without_git_it_is_unknown(clone: Path) -> None:
    unknown(found(clone / "src", PATH="/nowhere"), "'git'")


@pytest.mark.parametrize(("handed", "clean"), [("1", True), ("0", False), ("", None)])
def test_without_git_the_environment_hands_commit_and_cleanness_in(
    handed: str, clean: bool | None, tmp_path: Path
) -> None:
    copy_package(tmp_path)
    told = found(tmp_path, SOURCE_COMMIT="a" * 40, SOURCE_CLEAN=handed)
    assert told == Found("a" * 40, clean, "")
    unknown(found(tmp_path, SOURCE_COMMIT="| HEAD", SOURCE_CLEAN=handed), "SOURCE_COMMIT is no commit: '| HEAD'")


def test_git_is_believed_before_the_environment(clone: Path) -> None:
    assert found(clone / "src", SOURCE_COMMIT="a" * 40, SOURCE_CLEAN="0") == Found(head(clone), True, "")


def test_packages_and_python_are_named() -> None:
    said = provenance()
    assert set(said) == {"commit", "clean", "packages", "python"}
    assert said["python"].count(".") == 2
    assert said["packages"]["torch"][0].isdigit()

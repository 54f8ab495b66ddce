"""Machines and accounts that lack something: cores that are not told, a home folder, a folder of one's own."""

import os
import tempfile
from pathlib import Path

import pytest

from trained_binarization.errors import UserError
from trained_binarization.machine import cache_folder, ensure_home, usable_cpus


def test_the_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cpus() == len(before)
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert usable_cpus() == os.cpu_count()


def test_the_cache_is_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = cache_folder("inductor")
    assert folder == tmp_path / ".cache" / "trained-binarization" / "inductor"
    assert folder.is_dir()
    assert cache_folder("inductor") == folder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder for temporary files, and no home folder that can be made."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.mark.parametrize("home", ["", "/", "relative", None])
def test_without_a_home_folder_it_is_a_private_one_below_the_temporary(
    home: str | None, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if home is not None:
        monkeypatch.setenv("HOME", home)
    folder = cache_folder("inductor")
    assert folder == temporary / f"trained-binarization-{os.getuid()}" / "inductor"
    assert folder.parent.stat().st_mode & 0o077 == 0
    assert cache_folder("inductor") == folder  # one for all processes


@pytest.mark.parametrize("planted", ["a link", "writable for all", "another's"])
def test_what_somebody_else_could_have_planted_is_not_run(planted: str, temporary: Path) -> None:
    taken = temporary / f"trained-binarization-{os.getuid()}"
    if planted == "a link":
        (temporary / "elsewhere").mkdir()
        taken.symlink_to(temporary / "elsewhere")
    else:
        taken.mkdir()
        if planted == "writable for all":
            taken.chmod(0o777)
        elif os.geteuid() == 0:
            os.chown(taken, 12345, 12345)
        else:
            pytest.skip("only root can give files away")
    folder = cache_folder("inductor")
    assert folder.parent.parent == temporary
    assert folder.parent.name.startswith("trained-binarization-")
    assert folder.parent != taken
    assert folder.parent.stat().st_mode & 0o077 == 0


def test_without_any_folder_it_says_so(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(UserError, match=r"found no folder that can be written to .*; allowed: one that TMPDIR names"):
        cache_folder("inductor")


def test_where_the_system_names_no_home_folder_libraries_find_one(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    ensure_home()
    assert os.environ["HOME"] == "/somewhere"
    monkeypatch.setenv("HOME", "~")
    ensure_home()
    assert Path.home() == temporary / f"trained-binarization-{os.getuid()}"
    assert Path.home().is_dir()

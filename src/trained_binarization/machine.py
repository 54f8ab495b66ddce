"""What machines and accounts offer, and not all of them: cores that are told, a folder of the user's own."""

import os
import tempfile
from pathlib import Path

from trained_binarization.errors import UserError


def usable_cpus() -> int:
    """The number of cores that this process may use; all of the machine's where the system does not tell (macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ensure_home() -> None:
    """Give this process a home folder where the system names none: libraries that look for theirs would fail."""
    if not os.path.isabs(os.path.expanduser("~")):
        os.environ["HOME"] = str(_temporary_folder())


def cache_folder(name: str) -> Path:
    """A folder that is this user's own, for what can be made again: below the home folder, or the temporary one.

    In a container the user may have no home folder, or one that cannot be written to. What lies in a cache is run: a
    folder of somebody else, or one that everybody may write to, is not taken.
    """
    home = Path(os.path.expanduser("~"))
    if home.is_absolute() and home != Path("/") and _own(folder := home / ".cache" / "trained-binarization" / name):
        return folder
    folder = _temporary_folder() / name
    folder.mkdir(exist_ok=True)
    return folder


def _temporary_folder() -> Path:
    try:
        folder = Path(tempfile.gettempdir(), f"trained-binarization-{os.getuid()}")
        return folder if _own(folder) else Path(tempfile.mkdtemp(prefix="trained-binarization-"))
    except OSError as error:
        raise UserError(f"found no folder that can be written to ({error}); allowed: one that TMPDIR names") from None


def _own(folder: Path) -> bool:
    """Whether the folder is there, or can be made, and is this user's alone to write to."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
    except OSError:
        return False
    return (
        folder.is_dir()
        and not folder.is_symlink()
        and about.st_uid == os.getuid()
        and not about.st_mode & 0o002
        and os.access(folder, os.W_OK | os.X_OK)
    )

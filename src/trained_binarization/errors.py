"""The one error that a user is meant to read."""

import importlib.util


class UserError(Exception):
    """One line that names the file, the key, what was found and what is allowed; the command ends with status 2."""


class NotRun(UserError):
    """What cannot be done here, for a reason that a stage writes down where it would have failed."""


def require(*packages: str) -> None:
    """NotRun where one of the optional packages is missing."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise NotRun(f"{package} is not installed: pip install '.[deploy]'")

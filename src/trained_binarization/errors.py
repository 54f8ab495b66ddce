"""The one error that a user is meant to read."""

import importlib.util

LONGEST = 600
"""Characters of the longest message: what a user wrote may be longer than a line."""


def one_line(text: str) -> str:
    """The text as one line that a terminal can show: control characters escaped, the middle of a long text left out."""
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    if len(printable) <= LONGEST:
        return printable
    return f"{printable[: LONGEST * 2 // 3]} … {printable[-LONGEST // 3 + 3 :]}"


def cut(text: str) -> str:
    """The text as a message echoes it: the end of a long one left out."""
    return text if len(text) <= 80 else f"{text[:70]} … ({len(text):,} characters)"


def shown(value: object) -> str:
    """A value as a message names what was found: its repr, cut."""
    return cut(repr(value))


class UserError(Exception):
    """One line that says what is wrong, what was found and what to do; the command ends with `exit_status`."""

    exit_status = 2

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class NotRun(UserError):
    """What cannot be done here, for a reason that a stage writes down where it would have failed."""


class Diverged(UserError):
    """A training met a loss, a factor, a weight or an accuracy that is not finite, and stopped without a record."""

    exit_status = 1


def require(*packages: str) -> None:
    """NotRun where one of the optional packages is missing."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise NotRun(f"{package} is not installed: pip install -e '.[deploy]'")

"""The one error that a user is meant to read."""


class UserError(Exception):
    """One line that names the file, the key, what was found and what is allowed; the command ends with status 2."""


class NotRun(UserError):
    """What cannot be done here, for a reason that a stage writes down where it would have failed."""

"""The base of every error that a user can correct. Any other exception is a bug and shows its traceback."""


class UserError(Exception):
    """A request cannot be fulfilled; the message states the problem and what to do.

    Commands print the message in one line and exit with status 1, and the web page shows it.
    """


class InvalidInput(UserError, ValueError):
    """A setting, a file or an image that cannot be used."""


class MissingPackage(UserError, ImportError):
    """An optional package is not installed; the message says how to install it."""

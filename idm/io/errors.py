"""The base of every error that a user can put right. Any other exception is a bug and shows its traceback."""


class UserError(Exception):
    """Something asked for cannot be done; the message says what is wrong and what to do about it.

    Commands print the message in one line and exit with status 1, and the web page shows it.
    """


class InvalidInput(UserError, ValueError):
    """A setting, a file or an image that cannot be used."""


class MissingPackage(UserError, ImportError):
    """An optional package is not installed; the message says how to install it."""

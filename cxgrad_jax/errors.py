"""The exceptions that a program turns into one line: a user's mistake and an interruption."""


class UserError(ValueError):
    """Bad input from the user: a configuration, flag, file or array that cannot be used.

    The message is one line that names the value, what was expected and how to mend it. The command line prints it to
    stderr without a traceback and exits with status 2.
    """


class AlreadyTold(UserError):
    """A file could not be written. That was said before the work began, and the result was printed instead."""


class Interrupted(Exception):
    """The run was asked to stop, and its state is saved."""


def reason(error: BaseException) -> str:
    """The cause that an exception names, in one line. An exception of the file system names it without the path."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__

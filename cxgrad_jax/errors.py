"""The one exception that stands for a user's mistake."""


class UserError(ValueError):
    """Bad input from the user: a configuration, flag, file or array that cannot be used.

    The message is one line that names the value, what was expected and how to mend it. The command line prints it
    to stderr without a traceback and exits with status 2.
    """

"""Standard output and error whose reader may go away, or whose disk may be full.

A program whose lines nobody reads any more still has work to do and files to write. So the first write that fails turns
the stream to ``os.devnull``. A reader that went away, as ``head`` does, has read all it wanted. Any other failure of
standard output is reported once, at the end, with exit status 2.
"""

import os
import sys
from typing import Any, TextIO, cast

from cxgrad_jax.errors import reason


class _Lasting:
    """A text stream that goes to ``os.devnull`` from its first failure on.

    Attributes:
      failure: the first failure of a write, or None. A reader that went away does not count.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            self.failure = self.failure or error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # what the stream still holds goes there, too
        os.close(nowhere)


def make_lasting() -> None:
    """Makes ``sys.stdout`` and ``sys.stderr`` last as long as the process.

    A stream that is closed from the start, as by ``>&-``, becomes ``os.devnull``. A character that a terminal's
    encoding lacks is written as an escape.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, _Lasting):
            continue
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, cast(TextIO, _Lasting(stream)))


def status_of_streams(status: int) -> int:
    """Ends the output and returns the exit status. It is 2 instead of 0 if standard output could not be written."""
    sys.stdout.flush()
    failure = getattr(sys.stdout, "failure", None)
    if failure is not None:
        print(f"standard output cannot be written: {reason(failure)}", file=sys.stderr)
        status = status or 2
    sys.stderr.flush()
    return status

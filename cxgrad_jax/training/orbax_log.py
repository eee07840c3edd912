"""What Orbax says beside its exceptions, and what of it is shown."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from absl import logging as absl_logging

from cxgrad_jax.accounts import accounts_without_names, shared


def is_worth_reading(record: logging.LogRecord) -> bool:
    """Whether a line of the log is shown. Lines of Orbax are only shown with ``--verbosity=info``.

    Orbax warns of things that are done on purpose, and logs a traceback of exceptions that it raises as well.
    """
    return "orbax" not in Path(record.pathname).parts or absl_logging.get_verbosity() > absl_logging.WARNING


@shared
@contextmanager
def orbax_at_work() -> Iterator[None]:
    """Lets Orbax work for an owner without an account, and keeps its own messages off stderr beside the exception."""
    hooks = sys.excepthook, sys.unraisablehook
    asyncio_logger, absl_logger = logging.getLogger("asyncio"), absl_logging.get_absl_logger()

    def shown(record):
        return is_worth_reading(record)  # a filter of our own, so that removing it removes no other

    sys.excepthook = sys.unraisablehook = lambda *_: None
    asyncio_logger.disabled = True
    absl_logger.addFilter(shown)
    try:
        with accounts_without_names():
            yield
    finally:
        sys.excepthook, sys.unraisablehook = hooks
        asyncio_logger.disabled = False
        absl_logger.removeFilter(shown)

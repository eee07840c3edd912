"""A run that is asked to stop: SIGINT and SIGTERM become a flag, so that the state is saved first."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils

from cxgrad_jax.errors import Interrupted


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Turns the first SIGINT or SIGTERM into a flag that the loop asks for. A second one ends the process at once.

    If one of several processes is asked to stop, all stop. Python gives signals only to the main thread; in any other
    thread the flag stays down.
    """
    received: list[int] = []

    def handle(number, _):
        received.append(number)
        for number in previous:
            signal.signal(number, signal.SIG_DFL)

    def stop():
        if jax.process_count() == 1:
            return bool(received)
        return bool(multihost_utils.process_allgather(np.asarray(len(received))).any())

    previous = {}
    if threading.current_thread() is threading.main_thread():
        previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def stop_together(message: str) -> Iterator[Callable[[], None] | None]:
    """Lets several processes end together work that has nothing to save.

    The context gives a function that is called between two parts of the work, equally often in every process. If one
    process received SIGINT or SIGTERM, it raises ``Interrupted`` with ``message`` in all of them. A single process ends
    at once, and the context gives None.
    """
    if jax.process_count() == 1:
        yield None
        return
    with stop_signals() as stop:

        def poll():
            if stop():
                raise Interrupted(message)

        yield poll

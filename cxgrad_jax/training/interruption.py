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
    """Turns the first SIGINT or SIGTERM into a flag that the loop asks for; a second one ends the process at once.

    Several processes all stop where one was asked to. In a thread other than the main one Python gives no signals;
    there the flag stays down.
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
    """Lets several processes end together work that has nothing to save; None with one process, which ends at once.

    Gives the function to call between two parts of the work, in every process equally often. It raises ``Interrupted``
    with ``message`` in all of them where one received SIGINT or SIGTERM.
    """
    if jax.process_count() == 1:
        yield None
        return
    with stop_signals() as stop:

        def poll():
            if stop():
                raise Interrupted(message)

        yield poll

"""A run that is asked to stop: SIGINT and SIGTERM become a flag, so that the state is saved first."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils


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

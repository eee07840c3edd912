"""The TensorBoard events of a run (needs tensorboardX). Each is written once, and at once."""

import math
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cxgrad_jax.errors import UserError, reason
from cxgrad_jax.files import write_whole


class Board:
    """Writes the numbers of a run as events. It does so in this thread, so that a failure is reported as for any file.

    Opening drops the events beyond ``iteration``. The run goes on from there and will write them again. If the state at
    ``iteration`` is not validated, events of its validation are dropped, too.

    Raises:
      UserError: a file cannot be read or written.
    """

    def __init__(self, folder: Path, iteration: int, is_validated: bool = True):
        from tensorboardX.event_file_writer import EventsWriter

        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.glob("events.out.tfevents.*"):
                _drop_after(path, iteration, is_validated)
            # The name has the time in seconds. A file of the same name would be overwritten.
            self._writer = EventsWriter(str(folder / "events"), f".{iteration}")
            self._writer.flush()
        except OSError as error:
            raise self._refused(error) from None

    def write(self, iteration: int, split: str, numbers: dict[str, float]) -> None:
        """Writes those of ``numbers`` that are finite as ``split/name`` after ``iteration``."""
        try:
            for name, value in numbers.items():
                if math.isfinite(value):
                    self._writer.write_event(_event(iteration, f"{split}/{name}", value))
            self._writer.flush()
        except OSError as error:
            raise self._refused(error) from None

    def close(self) -> None:
        try:
            self._writer.close()
        except OSError:  # ``write`` has reported it
            pass

    def _refused(self, error: OSError) -> UserError:
        return UserError(f"events in {self._folder} cannot be written: {reason(error)}")


def _event(iteration: int, tag: str, value: float) -> Any:
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.summary import scalar

    return Event(wall_time=time.time(), step=iteration, summary=scalar(tag, value))


def _drop_after(path: Path, iteration: int, is_validated: bool) -> None:
    """Drops from a file of events those that ``Board`` says, and one that a kill cut short."""

    def is_kept(event):
        is_of_validation = any(value.tag.startswith("val/") for value in event.summary.value)
        return event.step < iteration + (is_validated or not is_of_validation)

    content = path.read_bytes()
    kept = b"".join(record for record, event in _records(content) if is_kept(event))
    if kept != content:
        write_whole(path, kept)


def _records(content: bytes) -> Iterator[tuple[bytes, Any]]:
    """The readable records of a file of events, each with its event. A record is length, checksum, event, checksum."""
    from google.protobuf.message import DecodeError
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

    start = 0
    while start + 16 <= len(content):
        end = start + 16 + struct.unpack_from("<Q", content, start)[0]
        if end > len(content):
            return
        try:
            yield content[start:end], Event.FromString(content[start + 12 : end - 4])
        except DecodeError:
            return
        start = end

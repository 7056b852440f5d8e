"""TensorBoard event files with TF1-style scalars, as the original's (specification, section 7)."""

import contextlib
import itertools
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from common.files import sync

_LOG = logging.getLogger(__name__)


class EventLog:
    """Scalars by tag and iteration.

    What is written is in the file after `flush`, `sizes` and `close`. All methods raise
    `OSError` when it cannot.

    Args:
        folder: where the event files are; each process that writes adds one.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._writer: tf.io.TFRecordWriter | None = None
        self._path: str | None = None

    def rewind(self, sizes: Mapping[str, int]) -> None:
        """Takes back what was written after a checkpoint; before this process has written.

        Args:
            sizes: `{file name: bytes}` as `sizes()` returned them at the checkpoint.
        """
        found = {path.name: path for path in self._folder.glob("events.out.tfevents.*")}
        for name, path in found.items():
            if name not in sizes:
                path.unlink()
            elif path.stat().st_size > sizes[name]:
                os.truncate(path, sizes[name])
        for name, size in sizes.items():
            if name not in found or found[name].stat().st_size < size:
                _LOG.warning("%s lacks scalars that were written to it", self._folder / name)

    def sizes(self) -> dict[str, int]:
        """`{file name: bytes}` of the event files, everything written so far being on disk."""
        self.flush()
        if self._path is not None:
            sync(self._path)
        return {p.name: p.stat().st_size for p in self._folder.glob("events.out.tfevents.*")}

    def write(self, global_id: int, scalars: Mapping[str, float], wall_time: float) -> None:
        """Adds the values of one iteration.

        Args:
            global_id: the iteration.
            scalars: `{tag: float}`.
            wall_time: seconds since the epoch.
        """
        writer = self._writer or self._open(wall_time)
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        event = Event(wall_time=wall_time, step=global_id, summary=Summary(value=values))
        _add(writer, event)

    def flush(self) -> None:
        """Brings to the file what was written."""
        if self._writer is not None:
            with _os_errors():
                self._writer.flush()

    def close(self) -> None:
        """Brings to the file what was written, and ends it."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with _os_errors():
                writer.close()

    def _open(self, wall_time: float) -> tf.io.TFRecordWriter:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._path = self._new_path()
        with _os_errors():
            self._writer = tf.io.TFRecordWriter(self._path)
        _add(self._writer, Event(wall_time=wall_time, file_version="brain.Event:2"))
        return self._writer

    def _new_path(self) -> str:
        """A name that no other has; TensorBoard reads files in the order of their names."""
        stem = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        paths = (self._folder / f"{stem}.{number}" for number in itertools.count())
        return str(next(path for path in paths if not path.exists()))


def _add(writer: tf.io.TFRecordWriter, event: Event) -> None:
    with _os_errors():
        writer.write(event.SerializeToString())


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """TensorFlow's errors of the file system as `OSError`s."""
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(error.message) from error

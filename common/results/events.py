"""TensorBoard event files with TF1-style scalars, as the original's (specification, section 7)."""

import os
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter


class EventLog:
    """Scalars by tag and iteration. Writing happens in a thread of its own.

    Args:
        folder: where the event files are; each process that writes adds one.
    """

    def __init__(self, folder):
        self._folder = Path(folder)
        self._writer = None

    def rewind(self, sizes):
        """Takes back what was written after a checkpoint; before this process has written.

        Args:
            sizes: `{file name: bytes}` as `sizes()` returned them at the checkpoint.
        """
        for path in self._folder.glob("events.out.tfevents.*"):
            if path.name not in sizes:
                path.unlink()
            elif path.stat().st_size > sizes[path.name]:
                os.truncate(path, sizes[path.name])

    def sizes(self):
        """`{file name: bytes}` of the event files, everything written so far being on disk."""
        if self._writer is not None:
            self._writer.flush()
        return {p.name: p.stat().st_size for p in self._folder.glob("events.out.tfevents.*")}

    def write(self, global_id, scalars, wall_time):
        """Adds the values of one iteration.

        Args:
            global_id: the iteration.
            scalars: `{tag: float}`.
            wall_time: seconds since the epoch.
        """
        if self._writer is None:
            self._writer = EventFileWriter(str(self._folder))
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        summary = Summary(value=values)
        self._writer.add_event(Event(wall_time=wall_time, step=global_id, summary=summary))

    def close(self):
        """Writes out what is left and ends the thread."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

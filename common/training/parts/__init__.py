"""What a training loop does beside training, each part knowing its own: when it is due, what it
writes, and what it takes back when a run goes on from a checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from common.training.iterations import Row


class Part(Protocol):
    """One part. `Trainer` calls all of them in one order."""

    def resume(self, done: int, written: Mapping[str, Any]) -> None:
        """Takes back what was written after a checkpoint.

        Args:
            done: the last iteration that the checkpoint holds, -1 without one.
            written: what the checkpoint says of the files written until then.
        """

    def is_due(self, global_id: int) -> bool:
        """Whether there is something to do after an iteration, so that a chunk must end there."""

    def after(self, first: int, rows: Sequence[Row]) -> None:
        """Does what is due after a chunk of iterations, of which the first has id `first`."""

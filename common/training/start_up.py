"""How long each part of a start takes, for the log."""

import logging
import time

import psutil

_LOG = logging.getLogger(__name__)


class StartUp:
    """Times the parts between the process's start and its first iteration.

    What came before the instance was made is the first part, "imports and checks".
    """

    def __init__(self) -> None:
        self._last = self._began = psutil.Process().create_time()
        self._parts: list[tuple[str, float]] = []
        self.lap("imports and checks")

    def lap(self, part: str) -> None:
        """Ends a part, of that name."""
        now = time.time()
        self._parts.append((part, now - self._last))
        self._last = now

    def finish(self, part: str) -> None:
        """Ends the last part, and logs all of them."""
        self.lap(part)
        parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self._parts)
        _LOG.info("start-up %.1f s: %s", self._last - self._began, parts)

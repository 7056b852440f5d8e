"""`scheduler.log`: starts, ends and the slot of each task (specification, section 7)."""

import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path


class SchedulerLog:
    """Appends lines to the file, as several starts of `main.py` may do at once.

    That it cannot be written is said once; the jobs go on.

    Args:
        path: the file.
        show: `f(line, level)` shows the line to the user.
    """

    def __init__(self, path: Path, show: Callable[[str, int], None]) -> None:
        self._path = path
        self._show = show
        self._is_lost = False

    def write(self, text: str, level: int = logging.INFO) -> None:
        """Logs a line and shows it."""
        self._show(text, level)
        moment = datetime.now().isoformat(" ", "milliseconds").replace(".", ",")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(f"{moment} {logging.getLevelName(level)} {text}\n")
        except OSError as error:
            if not self._is_lost:
                self._show(f"{self._path} cannot be written: {error.strerror}", logging.ERROR)
            self._is_lost = True

"""`scheduler.log`: starts, ends and the device of each run (specification, section 7)."""

import logging
from datetime import datetime


class SchedulerLog:
    """Appends lines to the file, as several starts of `main.py` may do at once.

    That it cannot be written is said once; the jobs go on.

    Args:
        path: the file.
        show: `f(line, level)` shows the line to the user.
    """

    def __init__(self, path, show):
        self._path = path
        self._show = show
        self._is_lost = False

    def write(self, text, level=logging.INFO):
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

"""`time.txt`: when iterations started and ended (specification, section 7)."""

import re
from datetime import datetime
from pathlib import Path
from typing import Literal

from common.errors import UserError
from common.files import atomic_write

EVERY = 1000
_LINE = re.compile(r"iter (\d{1,18}) (?:starts|ends): .*\d{6}\n")


def is_timed(global_id: int, iterations: int) -> bool:
    """Whether an iteration's times are recorded: the first, the last and every 1,000th."""
    return (global_id + 1) % EVERY == 0 or global_id in (0, iterations - 1)


def record_time(path: str | Path, global_id: int, event: Literal["starts", "ends"]) -> None:
    """Appends `iter <id> <event>: <local time>`."""
    now = datetime.now().strftime("%Y-%m-%d %H:%M:%S.%f")
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(f"iter {global_id} {event}: {now}\n")


def drop_times_after(path: str | Path, global_id: int) -> None:
    """Removes the lines of later iterations, which a resumed run will write again."""
    path = Path(path)
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    matches = [_LINE.fullmatch(line) for line in lines]
    kept = [match[0] for match in matches if match and int(match[1]) <= global_id]
    if kept != lines:
        with atomic_write(path) as file:
            file.writelines(kept)


def training_seconds(path: str | Path) -> float:
    """Seconds from the first recorded start to the last recorded end, by the clock on the wall.

    Raises:
        UserError: the file is missing, or is not as `record_time` writes it.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        moments = [line.partition(": ")[2] for line in (lines[0], lines[-1])]
        first, last = (datetime.strptime(moment, "%Y-%m-%d %H:%M:%S.%f") for moment in moments)
    except (OSError, ValueError, IndexError) as error:
        raise UserError(f"{path} cannot be read ({error}): it is not a run's time.txt") from error
    return (last - first).total_seconds()

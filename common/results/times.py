"""`time.txt`: when iterations started and ended (specification, section 7)."""

from datetime import datetime
from pathlib import Path

EVERY = 1000


def is_timed(global_id, iterations):
    """Whether an iteration's times are recorded: the first, the last and every 1,000th."""
    return (global_id + 1) % EVERY == 0 or global_id in (0, iterations - 1)


def record_time(path, global_id, event):
    """Appends `iter <id> <event>: <local time>`, `event` being "starts" or "ends"."""
    now = datetime.now().strftime("%Y-%m-%d %H:%M:%S.%f")
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(f"iter {global_id} {event}: {now}\n")


def training_seconds(path):
    """Seconds from the first recorded start to the last recorded end, by the clock on the wall."""
    moments = [line.split(": ", 1)[1] for line in Path(path).read_text().splitlines()]
    first, last = (datetime.strptime(m, "%Y-%m-%d %H:%M:%S.%f") for m in (moments[0], moments[-1]))
    return (last - first).total_seconds()

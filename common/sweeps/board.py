"""The jobs of a sweep: which is next, and what has become of each."""

import logging
from collections import deque
from collections.abc import Sequence

from common.errors import UserError
from common.exit_status import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NO_SPACE,
    EXIT_OK,
    EXIT_USER_ERROR,
)
from common.results.run_folder import Record
from common.sweeps.attempt import Sweeper, Task, is_failed_for_good, record_if_readable
from common.sweeps.log import SchedulerLog
from common.sweeps.slots import Slot

# What becomes of a job: "elsewhere" means that another start of `main.py` has it.
_STATUSES = {
    "failed": EXIT_FAILED,
    "queued": EXIT_INTERRUPTED,
    "interrupted": EXIT_INTERRUPTED,
    "elsewhere": EXIT_INTERRUPTED,
    "done": EXIT_OK,
}


class Board:
    """The queue and the state of each job.

    Args:
        tasks: those of all jobs.
        sweeper: this start of `main.py`.
        retries: how often a job that has failed is tried again.
        log: is told what becomes of each.

    Attributes:
        states: `{job's name: state}`: "queued", "running", "done", "failed", "interrupted" or
            "elsewhere".

    Raises:
        UserError: a folder cannot be used for its job.
    """

    def __init__(
        self, tasks: Sequence[Task], sweeper: Sweeper, retries: int, log: SchedulerLog
    ) -> None:
        self.states: dict[str, str] = {}
        self._sweeper = sweeper
        self._log = log
        self._queue: deque[Task] = deque()
        self._elsewhere: list[Task] = []
        self._tries: dict[str, int] = {}
        self._needed: dict[str, int | None] = {}
        self._exit_codes: dict[str, int | None] = {}
        for task in tasks:
            self._plan(task, retries)

    def _plan(self, task: Task, retries: int) -> None:
        record = None
        if not self._sweeper.force_rerun:
            task.folder.check(task.job.settings)
            record = task.folder.record
        state = record["state"] if record else "queued"
        if state == "done":
            self._end(task, "done", f"skips task {task.name}: it is done")
        elif is_failed_for_good(record) and not retries:
            why = f"it has failed ({_ending(record)}); --retries=1 tries it again"
            self._end(task, "failed", f"skips task {task.name}: {why}", _exit_code(record))
        else:
            self._tries[task.name] = retries if is_failed_for_good(record) else retries + 1
            self._enqueue(task)

    def _enqueue(self, task: Task) -> None:
        self.states[task.name] = "queued"
        self._needed[task.name] = self._devices_of(task)
        self._queue.append(task)

    def _devices_of(self, task: Task) -> int | None:
        """By its job's settings, or because its run began on so many and is to go on."""
        record = record_if_readable(task.folder)
        sweeper = self._sweeper
        if record is None or sweeper.replaces(record) or sweeper.leaves(record):
            return task.job.settings.num_gpus
        return task.job.settings.num_gpus or record["conditions"].get("replicas")

    def _end(
        self,
        task: Task,
        state: str,
        text: str,
        exit_code: int | None = None,
        level: int = logging.INFO,
    ) -> None:
        self.states[task.name] = state
        self._exit_codes[task.name] = exit_code
        self._log.write(text, level)

    @property
    def queued(self) -> tuple[Task, ...]:
        """The tasks that wait, in their order."""
        return tuple(self._queue)

    def devices_needed(self, task: Task) -> int | None:
        """How many devices a task must have, None if any number will do."""
        return self._needed[task.name]

    def next_for(self, devices: int | None = None) -> Task | None:
        """Takes the next task for so many devices (None: for any number); None if there is none."""
        for task in self._queue:
            if None in (devices, self._needed[task.name]) or self._needed[task.name] == devices:
                self._queue.remove(task)
                return task
        return None

    def began(self, task: Task, where: str) -> None:
        """A task's process runs, `where` naming its slot and, on a cluster, the host."""
        self.states[task.name] = "running"
        self._log.write(f"{where} receives task {task.name}")

    def ended(self, task: Task, where: str, record: Record) -> None:
        """A task's process has ended, `record` being its run's."""
        state, name = record["state"], task.name
        if state == "done":
            missing = len(record.get("missing_metrics", []))
            rest = f"; {missing} row(s) of its metrics are missing" if missing else ""
            level = logging.WARNING if missing else logging.INFO
            text = f"{where} finishes task {name}{rest}"
            self._end(task, state, text, _exit_code(record), level)
        elif state == "interrupted":
            self._end(task, state, f"{where} stops task {name}: it goes on with the next start")
        else:
            self._failed(task, where, record)

    def _failed(self, task: Task, where: str, record: Record) -> None:
        self._tries[task.name] -= 1
        text = f"{where} fails task {task.name}: {_ending(record)}"
        if self._tries[task.name] > 0:
            self._log.write(f"{text}; it will be tried again", logging.ERROR)
            self._enqueue(task)
        else:
            self._end(task, "failed", text, _exit_code(record), logging.ERROR)

    def unusable(
        self, task: Task, error: str | Exception, code: int | None = EXIT_USER_ERROR
    ) -> None:
        """A run's folder cannot be used, or a task's machines are lost."""
        self._end(task, "failed", f"fails task {task.name}: {error}", code, logging.ERROR)

    def ended_elsewhere(self, task: Task, record: Record) -> None:
        """Another start of `main.py` has done the job, or failed to; `record` says which."""
        text = "it is done" if record["state"] == "done" else f"it has failed ({_ending(record)})"
        self._end(task, record["state"], f"skips task {task.name}: {text}", _exit_code(record))

    def put_back(self, task: Task) -> None:
        """The task could not be begun, or not be ended, for want of something else."""
        self.states[task.name] = "queued"
        self._queue.appendleft(task)

    def taken_elsewhere(self, task: Task) -> None:
        """Another process trains in the run's folder."""
        self._end(task, "elsewhere", f"leaves task {task.name}: another process is running it")
        self._elsewhere.append(task)

    def take_up_elsewhere(self) -> None:
        """Queues what others had taken, once more."""
        tasks, self._elsewhere = self._elsewhere, []
        for task in tasks:
            self._enqueue(task)

    @property
    def exit_status(self) -> int:
        """That of `main.py`: what is the worst that has become of a job."""
        failures = {self._exit_codes[n] for n, state in self.states.items() if state == "failed"}
        if failures and failures <= {EXIT_USER_ERROR, EXIT_NO_SPACE}:
            return EXIT_USER_ERROR
        ranks = (EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK)
        return min((_STATUSES[state] for state in self.states.values()), key=ranks.index)


def _exit_code(record: Record | None) -> int | None:
    return record.get("exit_code") if record else None


def _ending(record: Record | None) -> str:
    reason = record.get("reason") if record else None
    return f"exit code {_exit_code(record)}" + (f", {reason}" if reason else "")


def sizes_for(board: Board, task: Task, slots: Sequence[Slot]) -> list[int]:
    """The numbers of devices that a task may be given.

    Raises:
        UserError: there is no such slot.
    """
    needed = board.devices_needed(task)
    sizes = sorted({len(slot.devices) for slot in slots})
    if needed is None:
        return sizes
    if needed not in sizes:
        raise UserError(
            f"{task.name} needs {needed} device(s) (by num_gpus, or as it was started), and "
            f"config.py's `gpu` has no entry of as many: make them agree."
        )
    return [needed]

"""The jobs of a sweep: which is next, and what has become of each."""

import logging
from collections import deque

from common.errors import UserError
from common.exit_status import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NO_SPACE,
    EXIT_OK,
    EXIT_USER_ERROR,
)
from common.sweeps.attempt import is_failed_for_good, record_if_readable

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
        tasks: the `Task`s.
        sweeper: the `Sweeper`.
        retries: how often a job that has failed is tried again.
        log: the `SchedulerLog`.

    Attributes:
        states: `{job's name: state}`: "queued", "running", "done", "failed", "interrupted" or
            "elsewhere".

    Raises:
        UserError: a folder cannot be used for its job.
    """

    def __init__(self, tasks, sweeper, retries, log):
        self.states = {}
        self._sweeper = sweeper
        self._log = log
        self._queue = deque()
        self._elsewhere = []
        self._tries = {}
        self._needed = {}
        self._exit_codes = {}
        for task in tasks:
            self._plan(task, retries)

    def _plan(self, task, retries):
        record = None
        if not self._sweeper.force_rerun:
            task.folder.check(task.job.settings)
            record = task.folder.record
        state = record["state"] if record else "queued"
        if state == "done":
            self._end(task, "done", f"skips task {task.name}: it is done")
        elif is_failed_for_good(record) and not retries:
            text = f"skips task {task.name}: it has failed ({_ending(record)}); --retries=1 tries"
            self._end(task, "failed", f"{text} it again", record)
        else:
            self._tries[task.name] = retries if is_failed_for_good(record) else retries + 1
            self._enqueue(task)

    def _enqueue(self, task):
        self.states[task.name] = "queued"
        self._needed[task.name] = self._devices_of(task)
        self._queue.append(task)

    def _devices_of(self, task):
        """By its configuration, or because it is trained on so many already and is to go on."""
        record = record_if_readable(task.folder)
        sweeper = self._sweeper
        goes_on = record and not (sweeper.replaces(record) or sweeper.leaves(record))
        recorded = record["conditions"].get("replicas") if goes_on else None
        return task.job.settings.num_gpus or recorded

    def _end(self, task, state, text, record=None, level=logging.INFO):
        self.states[task.name] = state
        self._exit_codes[task.name] = record and record.get("exit_code")
        self._log.write(text, level)

    @property
    def queued(self):
        """The tasks that wait, in their order."""
        return tuple(self._queue)

    def devices_needed(self, task):
        """How many devices a job must have, None if any number will do."""
        return self._needed[task.name]

    def next_for(self, devices=None):
        """Takes the next job that so many devices (None: any) can train; None if there is none."""
        for task in self._queue:
            if None in (devices, self._needed[task.name]) or self._needed[task.name] == devices:
                self._queue.remove(task)
                return task
        return None

    def began(self, task, device):
        """A job's process runs."""
        self.states[task.name] = "running"
        self._log.write(f"{device} receives task {task.name}")

    def ended(self, task, device, record):
        """A job's process has ended, `record` being what its folder says then."""
        state, name = record["state"], task.name
        if state == "done":
            missing = len(record.get("missing_metrics", []))
            rest = f"; {missing} row(s) of its metrics are missing" if missing else ""
            level = logging.WARNING if missing else logging.INFO
            self._end(task, state, f"{device} finishes task {name}{rest}", record, level)
        elif state == "interrupted":
            self._end(task, state, f"{device} stops task {name}: it goes on with the next start")
        else:
            self._failed(task, device, record)

    def _failed(self, task, device, record):
        self._tries[task.name] -= 1
        text = f"{device} fails task {task.name}: {_ending(record)}"
        if self._tries[task.name] > 0:
            self._log.write(f"{text}; it will be tried again", logging.ERROR)
            self._enqueue(task)
        else:
            self._end(task, "failed", text, record, logging.ERROR)

    def unusable(self, task, error, code=EXIT_USER_ERROR):
        """A job's folder cannot be used, or its machines are lost."""
        record = {"exit_code": code}
        self._end(task, "failed", f"fails task {task.name}: {error}", record, logging.ERROR)

    def ended_elsewhere(self, task, record):
        """Another start of `main.py` has done the job, or failed to; `record` says which."""
        text = "it is done" if record["state"] == "done" else f"it has failed ({_ending(record)})"
        self._end(task, record["state"], f"skips task {task.name}: {text}", record)

    def put_back(self, task):
        """The job could not be begun, or not be ended, for want of something else."""
        self.states[task.name] = "queued"
        self._queue.appendleft(task)

    def taken_elsewhere(self, task):
        """Another process trains in the job's folder."""
        self._end(task, "elsewhere", f"leaves task {task.name}: another process is running it")
        self._elsewhere.append(task)

    def take_up_elsewhere(self):
        """Queues what others had taken, once more."""
        tasks, self._elsewhere = self._elsewhere, []
        for task in tasks:
            self._enqueue(task)

    @property
    def exit_status(self):
        """That of `main.py`: what is the worst that has become of a job."""
        failures = {self._exit_codes[n] for n, state in self.states.items() if state == "failed"}
        if failures and failures <= {EXIT_USER_ERROR, EXIT_NO_SPACE}:
            return EXIT_USER_ERROR
        ranks = (EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK)
        return min((_STATUSES[state] for state in self.states.values()), key=ranks.index)


def _ending(record):
    reason = record.get("reason")
    return f"exit code {record.get('exit_code')}" + (f", {reason}" if reason else "")


def sizes_for(board, task, slots):
    """The numbers of devices that a job may be given.

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

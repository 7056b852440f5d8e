"""Several hosts that train together (`TF_CONFIG`): each trains the jobs in order, in one process.

All hosts must train the same job at the same time, so that there is nothing to schedule.
"""

import contextlib
import functools
import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from common.exit_status import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NO_SPACE,
    EXIT_OK,
    EXIT_USER_ERROR,
)
from common.results.run_folder import Attempter
from common.sweeps.attempt import Task, is_failed_for_good
from common.sweeps.slots import Slot
from common.sweeps.worker import LOG_FORMAT, log_to_stderr, stop_on_signals, train_one
from common.training.checks import check_job
from common.training.devices import is_chief
from common.training.errors import WorkerLostError
from common.training.run import Resources, RunOptions

_LOG = logging.getLogger("scheduler")
_FORMAT = "%(asctime)s %(levelname)s %(message)s"
_EXIT_DEFECT = 1  # Python's own, after a traceback


def run_all(
    tasks: Sequence[Task],
    slot: Slot,
    log_path: Path,
    options: RunOptions,
    *,
    retries: int = 0,
) -> int:
    """Trains every job that is not done.

    Args:
        tasks: those of all jobs.
        slot: each host's.
        log_path: of the scheduler's log.
        options: what the command line says besides.
        retries: if not 0, what had failed before is tried again, once.

    Returns:
        An exit status, see `common.command_line.main`.

    Raises:
        UserError: a folder, the data or the metrics are not as needed.
    """
    log_to_stderr("%(message)s")
    stop_requested = stop_on_signals(second_kills=True)
    with contextlib.ExitStack() as exits:
        if is_chief():
            exits.enter_context(_logging_to(log_path, _LOG, _FORMAT))
            train: Callable[..., int] = functools.partial(_train_as_chief, slot)
        else:
            root = exits.enter_context(tempfile.TemporaryDirectory())
            train = functools.partial(_train_without_results, root)
        todo = [task for task in tasks if _is_to_do(task, retries)]
        had_failed = {t for t in tasks if is_failed_for_good(t.folder.record)} - set(todo)
        statuses = {EXIT_FAILED if had_failed else EXIT_OK}
        if todo:
            resources = Resources(options, len(slot.devices))
            for task in todo:
                replicas = resources.strategy.num_replicas_in_sync
                check_job(task.job.settings, resources, replicas)
            train = functools.partial(train, resources, stop_requested)
            statuses |= _train_all(todo, train, stop_requested)
    ranks = (EXIT_USER_ERROR, EXIT_INTERRUPTED, EXIT_FAILED, EXIT_OK)
    return next(status for status in ranks if status in statuses)


def _is_to_do(task: Task, retries: int) -> bool:
    task.folder.check(task.job.settings)
    record = task.folder.record
    if record and (record["state"] == "done" or (is_failed_for_good(record) and not retries)):
        _LOG.info("skips task %s: it is %s", task.name, record["state"])
        return False
    return True


def _train_all(
    tasks: Sequence[Task], train: Callable[[Task], int], stop_requested: Callable[[], bool]
) -> set[int]:
    """Trains one job after another, until all are or one cannot be; returns the exit statuses."""
    statuses: set[int] = set()
    for task in tasks:
        if stop_requested():  # while the job before was in its last iteration
            return statuses | {EXIT_INTERRUPTED}
        try:
            code = train(task)
            statuses.add(EXIT_USER_ERROR if code == EXIT_NO_SPACE else code)
        except WorkerLostError as error:
            _LOG.error("%s", error)
            return statuses | {EXIT_FAILED}
        if statuses & {EXIT_INTERRUPTED, EXIT_USER_ERROR}:
            break
    return statuses


def _train_without_results(
    root: str,
    resources: Resources,
    stop_requested: Callable[[], bool],
    task: Task,
) -> int:
    folder = task.folder.shadow(root)
    with folder.lock():
        code, _ = train_one(task.job.settings, folder, resources, stop_requested)
    return code


def _train_as_chief(
    slot: Slot,
    resources: Resources,
    stop_requested: Callable[[], bool],
    task: Task,
) -> int:
    folder, settings = task.folder, task.job.settings
    attempter: Attempter = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "device": slot.name,
    }
    with folder.lock(), _logging_to(folder.log_path, logging.getLogger(), LOG_FORMAT):
        folder.begin(settings, attempter)
        _LOG.info("%s receives task %s", slot.name, task.name)
        try:
            code, error = train_one(settings, folder, resources, stop_requested)
        except WorkerLostError as lost:
            folder.end(EXIT_INTERRUPTED, str(lost))
            raise
        except Exception as defect:
            folder.end(_EXIT_DEFECT, repr(defect))
            _LOG.exception("%s fails task %s", slot.name, task.name)
            raise
        folder.end(code, str(error) if error else None)
        verb = {EXIT_OK: "finishes", EXIT_INTERRUPTED: "stops"}.get(code, "fails")
        _LOG.info("%s %s task %s%s", slot.name, verb, task.name, f": {error}" if error else "")
    return code


@contextlib.contextmanager
def _logging_to(path: Path, logger: logging.Logger, log_format: str) -> Iterator[None]:
    """Appends the logger's messages to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(log_format))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()

"""Runs the jobs of a sweep, one after another, in this process."""

import contextlib
import logging
import signal
import tempfile

from common.command_line import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from common.errors import UserError
from common.metrics import InvalidSamplesError
from common.training.devices import is_chief
from common.training.errors import DivergedError, InterruptedRunError, WorkerLostError
from common.training.run import Resources, check_job, train_job

# That the generator makes NaN may show in its samples before it shows in a loss.
_DIVERGENCE = (DivergedError, InvalidSamplesError)
_LOG = logging.getLogger("scheduler")
_WORKER_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_SCHEDULER_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def run_all(variant, sweep, folders, base, options):
    """Runs every job that is not done.

    Args:
        variant: the `Variant`.
        sweep: the `Sweep`.
        folders: the jobs' `RunFolder`s, in their order.
        base: the variant's folder, in which the scheduler's log is.
        options: the `RunOptions`.

    Returns:
        An exit status, see `common.command_line.main`.

    Raises:
        UserError: a folder, the data or the metrics are not as needed.
    """
    device = _device_name(sweep.scheduler.gpu[0])
    with (
        contextlib.ExitStack() as exits,
        _logging_to_console(),
        _stop_on_signals() as stop_requested,
    ):
        if is_chief():
            scheduler_log = base / sweep.scheduler.scheduler_log_file_path
            exits.enter_context(_logging_to(scheduler_log, _LOG))
        todo = _jobs_to_do(sweep, folders, device)
        if not todo:
            return EXIT_OK
        resources = Resources(options, _device_count(sweep.scheduler.gpu[0]))
        for job, _ in todo:
            check_job(variant, job.settings, resources)
        if not is_chief():
            root = exits.enter_context(tempfile.TemporaryDirectory())
            todo = [(job, folder.shadow(root)) for job, folder in todo]
        elif sweep.scheduler.force_rerun:
            todo = _setting_aside(todo)
        statuses = set()
        for job, folder in todo:
            if stop_requested():  # while the job before was in its last iteration
                return EXIT_INTERRUPTED
            status = _run_job(variant, job, folder, resources, device, stop_requested)
            if status == EXIT_INTERRUPTED:
                return status
            statuses.add(status)
    return max(statuses)


def _setting_aside(todo):
    """The same jobs, the old folder of each being set aside when its turn comes."""
    for job, folder in todo:
        folder.set_aside()
        yield job, folder


def _run_job(variant, job, folder, resources, device, stop_requested):  # noqa: PLR0917
    """Trains one job; returns an exit status."""
    try:
        with folder.lock(), _logged_task(device, job.folder, folder.log_path):
            train_job(variant, job.settings, folder, resources, stop_requested)
    except InterruptedRunError:
        return EXIT_INTERRUPTED
    except (*_DIVERGENCE, WorkerLostError):
        return EXIT_FAILED
    return EXIT_OK


def _jobs_to_do(sweep, folders, device):
    """`(job, folder)` of the jobs that are not done, whose folders can be used.

    With `force_rerun` that is all of them: their folders are set aside when their turn comes.
    """
    if sweep.scheduler.force_rerun:
        return list(zip(sweep.jobs, folders, strict=True))
    todo = []
    for job, folder in zip(sweep.jobs, folders, strict=True):
        folder.check(job.settings)
        if folder.state == "done":
            _LOG.info("%s skips task %s: it is done", device, job.folder)
        else:
            todo.append((job, folder))
    return todo


@contextlib.contextmanager
def _logged_task(device, name, path):
    """Logs everything to the task's own file, too, and how it ends."""
    with _logging_to(path, logging.getLogger(), _WORKER_FORMAT):
        _LOG.info("%s receives task %s", device, name)
        try:
            yield
        except InterruptedRunError as interruption:
            _LOG.info("%s stops task %s: %s", device, name, interruption)
            raise
        except Exception as error:
            foreseen = isinstance(error, (DivergedError, UserError, WorkerLostError))
            _LOG.error("%s fails task %s: %s", device, name, error, exc_info=not foreseen)
            raise
        _LOG.info("%s finishes task %s", device, name)


def _device_name(gpu):
    return f"gpu{gpu if isinstance(gpu, str) else ','.join(gpu)}"


def _device_count(gpu):
    return 1 if isinstance(gpu, str) else len(gpu)


@contextlib.contextmanager
def _logging_to_console():
    root = logging.getLogger()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


@contextlib.contextmanager
def _logging_to(path, logger, log_format=_SCHEDULER_FORMAT):
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


@contextlib.contextmanager
def _stop_on_signals():
    """Yields a function that tells whether SIGINT or SIGTERM has come; a second one kills."""
    received = []

    def on_signal(number, frame):
        del frame
        received.append(number)
        signal.signal(number, signal.SIG_DFL)
        _LOG.info("signal %d: stopping after this iteration; once more to stop at once", number)

    previous = {n: signal.signal(n, on_signal) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

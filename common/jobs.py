"""Runs the jobs of a sweep, one after another, in this process."""

import contextlib
import logging
import signal

from common.command_line import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from common.errors import UserError
from common.metrics import InvalidSamplesError
from common.training.errors import DivergedError, InterruptedRunError
from common.training.run import train_job

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
    for job, folder in zip(sweep.jobs, folders, strict=True):
        folder.check(job.settings)
    status = EXIT_OK
    device = _device_name(sweep.scheduler.gpu[0])
    with (
        _logging_to_console(),
        _logging_to(base / sweep.scheduler.scheduler_log_file_path, _LOG),
        _stop_on_signals() as stop_requested,
    ):
        for job, folder in zip(sweep.jobs, folders, strict=True):
            if folder.state == "done":
                _LOG.info("%s skips task %s: it is done", device, job.folder)
                continue
            if stop_requested():  # while the job before was in its last iteration
                return EXIT_INTERRUPTED
            try:
                with folder.lock(), _logged_task(device, job.folder, folder.log_path):
                    train_job(variant, job.settings, folder, options, stop_requested)
            except InterruptedRunError:
                return EXIT_INTERRUPTED
            except _DIVERGENCE:
                status = EXIT_FAILED
    return status


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
            foreseen = isinstance(error, (DivergedError, UserError))
            _LOG.error("%s fails task %s: %s", device, name, error, exc_info=not foreseen)
            raise
        _LOG.info("%s finishes task %s", device, name)


def _device_name(gpu):
    return f"gpu{gpu if isinstance(gpu, str) else ','.join(gpu)}"


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

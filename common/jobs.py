"""Runs the jobs of a sweep, one after another, in this process."""

import contextlib
import functools
import logging
import signal
import tempfile

from common.errors import UserError
from common.exit_status import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from common.metrics import InvalidSamplesError
from common.training.devices import is_chief, is_one_of_several_workers
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
    if sweep.scheduler.force_rerun and is_one_of_several_workers():
        raise UserError("force_rerun is not for several hosts: move the results away yourself.")
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
        train = functools.partial(
            _train_one, variant, resources=resources, device=device, stop_requested=stop_requested
        )
        return _train_all(todo, train, stop_requested)


def _train_all(todo, train, stop_requested):
    """Trains one job after another, until all are or one cannot; returns an exit status."""
    statuses = {EXIT_OK}
    try:
        for job, folder in todo:
            if stop_requested():  # while the job before was in its last iteration
                return EXIT_INTERRUPTED
            statuses.add(train(job, folder))
    except InterruptedRunError:
        return EXIT_INTERRUPTED
    except WorkerLostError:
        return EXIT_FAILED
    return max(statuses)


def _train_one(variant, job, folder, *, resources, device, stop_requested):
    """Trains a job; returns `EXIT_FAILED` if it diverges, which does not keep others from it."""
    try:
        with folder.lock(), _logged_task(device, job.folder, folder.log_path):
            train_job(variant, job.settings, folder, resources, stop_requested)
    except _DIVERGENCE:
        return EXIT_FAILED
    return EXIT_OK


def _setting_aside(todo):
    """The same jobs, the old folder of each being set aside when its turn comes."""
    for job, folder in todo:
        folder.set_aside()
        yield job, folder


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
    logging.getLogger("absl").setLevel(logging.WARNING)  # TensorFlow's notes on each checkpoint
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
        for each in previous:
            signal.signal(each, signal.SIG_DFL)
        _LOG.info("signal %d: stopping within about a second; once more to stop at once", number)

    previous = {n: signal.signal(n, on_signal) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

"""The process of a task: what it has to do is a message (`common.sweeps.message`) on its input.

Everything it prints is the run's log. Its exit status is one of `common.exit_status`, or 1 after a
traceback.
"""

import errno
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from common.choices import search_in
from common.configuration.settings import Settings
from common.errors import UserError
from common.exit_status import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NO_SPACE,
    EXIT_OK,
    EXIT_USER_ERROR,
)
from common.results.run_folder import RunFolder
from common.sweeps.child import die_with
from common.sweeps.message import CheckMessage, TrainMessage

if TYPE_CHECKING:
    from common.training.run import Resources, RunOptions

_LOG = logging.getLogger(__name__)
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_NO_SPACE = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def main() -> int:
    """Does what the message says; returns the exit status."""
    message = json.load(sys.stdin)
    die_with(message["parent"])
    search_in(message.get("search", []))
    actions: dict[str, Callable[[Any], int]] = {"check": _check, "train": _train}
    try:
        return actions[message["action"]](message)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR


def _check(message: CheckMessage) -> int:
    """Finds what would keep the jobs from starting; downloads and converts what they share."""
    log_to_stderr("%(message)s")
    from common.training import checks, run  # noqa: PLC0415 (slow: TensorFlow)

    options = open_options(message["options"])
    checks.check_devices(message["devices"])
    resources = run.Resources(options)
    for values, counts in message["jobs"]:
        for count in counts:
            checks.check_job(Settings(**values), resources, count)
    return EXIT_OK


def _train(message: TrainMessage) -> int:
    log_to_stderr(LOG_FORMAT)
    stop_requested = stop_on_signals(second_kills=False)
    from common.training import run  # noqa: PLC0415

    folder = RunFolder(message["folder"], message["log_file"])
    resources = run.Resources(open_options(message["options"]), message["devices"])
    code, _ = train_one(Settings(**message["settings"]), folder, resources, stop_requested)
    return code


def train_one(
    settings: Settings,
    folder: RunFolder,
    resources: "Resources",
    stop_requested: Callable[[], bool],
) -> tuple[int, Exception | None]:
    """Trains a job and says how it ended, also in the log.

    Returns:
        An exit status, and the error of which it tells or None.

    Raises:
        WorkerLostError: as of training.
        Exception: a defect.
    """
    from common.training.errors import DivergedError, InterruptedRunError  # noqa: PLC0415
    from common.training.run import train_job  # noqa: PLC0415

    _LOG.info("process %d begins task %s", os.getpid(), folder.path.name)
    try:
        if stop_requested():
            raise InterruptedRunError("stopped before training: the same command goes on.")
        train_job(settings, folder, resources, stop_requested)
    except InterruptedRunError as error:
        _LOG.info("stops task %s: %s", folder.path.name, error)
        return EXIT_INTERRUPTED, error
    except DivergedError as error:
        _LOG.error("error: %s", error)
        return EXIT_FAILED, error
    except Exception as error:
        is_full = _is_full_disk(error)
        if not isinstance(error, UserError) and not is_full:
            raise
        _LOG.error("error: %s", error)
        return (EXIT_NO_SPACE if is_full else EXIT_USER_ERROR), error
    _LOG.info("finishes task %s", folder.path.name)
    return EXIT_OK, None


def _is_full_disk(error: Exception) -> bool:
    """Whether Python or TensorFlow says that there is no space left, or none for this user."""
    return any(text in str(error) for text in _NO_SPACE)


def open_options(values: dict[str, Any]) -> "RunOptions":
    """The options of their JSON-able form.

    Raises:
        UserError: there is no metric of a name.
    """
    from common.metrics import chosen_metrics  # noqa: PLC0415
    from common.training.run import RunOptions  # noqa: PLC0415

    chosen_metrics(values["metrics"])
    paths = {"data_dir": Path(values["data_dir"]), "metrics": tuple(values["metrics"])}
    return RunOptions(**{**values, **paths})


def log_to_stderr(log_format: str) -> None:
    """Sends log messages to standard error."""
    logging.basicConfig(level=logging.INFO, format=log_format)
    logging.getLogger("absl").setLevel(logging.WARNING)  # TensorFlow's notes on each checkpoint


def stop_on_signals(*, second_kills: bool) -> Callable[[], bool]:
    """Returns a function that tells whether SIGINT or SIGTERM has come.

    Args:
        second_kills: whether a second one ends the process at once. A scheduler's child must bear
            several: from the scheduler, from the kernel when that dies, and from Slurm or systemd,
            which tell every process of theirs.
    """
    received: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)
        if second_kills:
            for each in (signal.SIGINT, signal.SIGTERM):
                signal.signal(each, signal.SIG_DFL)
        _LOG.info("signal %d: stopping within about a second", number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return lambda: bool(received)

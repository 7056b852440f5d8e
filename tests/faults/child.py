"""A small training run in a process of its own, and how it ends."""

import os
import sys
from pathlib import Path

from common.errors import UserError
from common.exit_status import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USER_ERROR
from common.results.run_folder import RunFolder
from common.sweeps.worker import stop_on_signals
from common.training.errors import DivergedError, InterruptedRunError
from tests.training.runs import train

# Everything is due often, so that a fault at a random moment meets all kinds of writing.
SETTINGS = {
    "iteration": 150,
    "vis_freq": 10,
    "metric_freq": 15,
    "save_checkpoint_freq": 6,
    "extra_checkpoint_freq": 50,
}


def run(folder, variant, log_path, training):
    """Trains until the end or a fault; the process's exit status says which.

    Args:
        folder: the run's folder.
        variant: name of the variant.
        log_path: file that takes what the process prints.
        training: an event, set once the first iterations have been trained.
    """
    _redirect_output(log_path)
    was_signalled = stop_on_signals(second_kills=False)

    def stop_requested():
        training.set()
        return was_signalled()

    statuses = {
        InterruptedRunError: EXIT_INTERRUPTED,
        UserError: EXIT_USER_ERROR,
        DivergedError: EXIT_FAILED,
    }
    try:
        with RunFolder(folder).lock():
            train(Path(folder), variant, stop_requested=stop_requested, **SETTINGS)
    except tuple(statuses) as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(next(status for kind, status in statuses.items() if isinstance(error, kind)))
    os._exit(EXIT_OK)  # a forked TensorFlow has nothing to tidy up


def _redirect_output(path):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())

"""Starts a sweep, here or on a cluster, and reports how it went."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from common.configuration.sweep import SchedulerConfig
from common.sweeps.attempt import Sweeper, Task
from common.sweeps.board import Board
from common.sweeps.local import LocalScheduler
from common.sweeps.log import SchedulerLog
from common.sweeps.slots import open_slots
from common.sweeps.status import print_table, read_status, short_names, to_reader
from common.sweeps.view import open_view


def run_sweep(
    tasks: Sequence[Task],
    scheduler: SchedulerConfig,
    base: Path,
    *,
    retries: int = 0,
    cluster: str | None = None,
    command: Sequence[str] | None = None,
) -> int:
    """Trains every job that is not done, and prints what has become of each.

    Args:
        tasks: those of all jobs.
        scheduler: where and how they are trained.
        base: the variant's folder, in which the scheduler's log is.
        retries: how often a job that has failed is tried again.
        cluster: the address of a Ray cluster, None for this machine.
        command: what a job's process executes, see `Sweeper`.

    Returns:
        An exit status, see `common.command_line.main`.

    Raises:
        UserError: a folder, a device, the data or the metrics are not as needed.
    """
    view = open_view(sys.stderr, short_names([task.job for task in tasks]))
    log = SchedulerLog(base / scheduler.scheduler_log_file_path, view.event)
    sweeper = Sweeper.new(scheduler.force_rerun, command)
    board = Board(tasks, sweeper, retries, log)
    if cluster is None:
        slots = open_slots(scheduler.slots, os.environ)
        status = LocalScheduler(board, slots, sweeper, view).run()
    else:
        from common.sweeps.cluster import ClusterScheduler  # noqa: PLC0415 (Ray is optional)

        status = ClusterScheduler(board, scheduler.slots, sweeper, view, cluster).run()
    print_status(tasks)
    return status


def print_status(tasks: Sequence[Task]) -> None:
    """Prints where each job stands."""
    with to_reader(sys.stdout):
        print_table([read_status(task.name, task.folder) for task in tasks], sys.stdout)

"""A sweep on a Ray cluster: each task is given to Ray, as a Ray task that asks for its devices.

The hosts share the results' folder, in which everything that must not be lost is written; Ray only
finds the place and the time for each task, and starts one again whose machine or process is lost.
"""

import contextlib
import logging
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast

import common
from common.errors import UserError
from common.exit_status import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_NO_SPACE, EXIT_OK
from common.results.run_folder import FolderInUseError, Record
from common.sweeps.attempt import (
    Attempt,
    Check,
    NothingToDoError,
    Sweeper,
    Task,
    record_if_readable,
)
from common.sweeps.board import Board
from common.sweeps.local import STOPPING, Signals
from common.sweeps.slots import VISIBLE, Slot
from common.sweeps.view import PlainView

_RETRIES = 3  # of a task whose machine or process is lost
_PAUSE = 0.5
_WATCH_SECONDS = 2
_CONNECT_SECONDS = 10


class ProcessKilledError(Exception):
    """A signal ended the task's process, and nobody had asked for it."""


@dataclass(frozen=True)
class Outcome:
    """What has become of a task.

    Attributes:
        how: "ended": by this sweeper; "ended elsewhere", "taken elsewhere": by another; "unusable":
            the run's folder is.
        record: the run's, where it "ended" or "ended elsewhere".
        reason: why it is "unusable".
    """

    how: Literal["ended", "ended elsewhere", "taken elsewhere", "unusable"]
    record: Record | None = None
    reason: str = ""


class ClusterScheduler:
    """Gives the tasks of a board to a Ray cluster.

    Args:
        board: the jobs.
        ids: `SchedulerConfig.slots`: a task has as many devices as the first entry.
        sweeper: this start of `main.py`.
        view: shows how it goes.
        address: of the cluster: "auto", "local" or what `ray.init` takes.

    Raises:
        UserError: Ray is not installed.
    """

    def __init__(
        self,
        board: Board,
        ids: Sequence[tuple[str, ...]],
        sweeper: Sweeper,
        view: PlainView,
        address: str,
    ) -> None:
        self._ray = _import_ray()
        self._board = board
        self._ids = ids
        self._sweeper = sweeper
        self._view = view
        self._address = address
        self._pending: dict[Any, Task] = {}  # by Ray's reference to its outcome
        self._watched = 0.0
        self._has_looked = False
        self._is_full = False
        self._where: dict[str, str] = {}  # of the tasks that have begun, by their names

    def run(self) -> int:
        """Runs the sweep; returns the exit status of `main.py`.

        Raises:
            UserError: there is no such cluster, or no machine in it has the devices for a task.
        """
        if not self._board.queued:
            return self._board.exit_status
        self._connect()
        try:
            self._look_for_devices()
            for task in self._board.queued:
                self._refuse_too_many(task)
            with Signals() as signals:
                status = self._check(signals)
                if status == EXIT_OK:
                    self._train_all(signals)
                    status = self._board.exit_status
            return status
        finally:
            self._view.close()
            self._ray.shutdown()

    def _connect(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        root = str(Path(common.__file__).parents[1])
        path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        options |= {"runtime_env": {"env_vars": {"PYTHONPATH": path}}}
        if self._address == "local":
            cpus = sum(len(devices) for devices in self._ids)
            options |= {"num_cpus": cpus, "include_dashboard": False}
        else:
            options["address"] = self._address
            self._refuse_silence()
        try:
            # Ray's workers look for modules in the folder in which it is called, before all others.
            with _in_folder(root):
                self._ray.init(**options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"--cluster={self._address}: no Ray cluster there ({reason})."
            ) from None

    def _refuse_silence(self) -> None:
        """Ray itself tries for minutes to reach an address at which nobody listens."""
        host, _, port = self._address.rpartition("://")[2].rpartition(":")
        if not port.isdecimal():
            return  # "auto", or what only Ray understands
        try:
            socket.create_connection(
                (host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS
            ).close()
        except (OSError, OverflowError) as error:
            raise UserError(f"--cluster={self._address}: nobody answers there ({error}).") from None

    def _look_for_devices(self) -> None:
        """Jobs train on GPUs if the cluster has any, otherwise on CPUs."""
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        self._has_gpus = any(machine.get("GPU", 0) >= 1 for machine in machines)
        self._device = "GPU" if self._has_gpus else "CPU"
        self._most = int(max(machine.get(self._device, 0) for machine in machines))

    def _refuse_too_many(self, task: Task) -> None:
        """Ray would wait for such a machine for ever."""
        count = self._count(task)
        if count > self._most:
            raise UserError(
                f"{task.name} needs {count} {self._device}(s), and the cluster's largest machine "
                f"has {self._most}."
            )

    def _count(self, task: Task) -> int:
        return self._board.devices_needed(task) or len(self._ids[0])

    def _remote(self, function: Callable[..., Any], count: int, **options: Any) -> Any:
        devices = {"num_gpus": count, "num_cpus": 1} if self._has_gpus else {"num_cpus": count}
        return self._ray.remote(**devices, **options)(function)

    def _check(self, signals: Signals) -> int:
        """Has one machine find what would keep a job from starting; returns an exit status."""
        tasks = self._board.queued
        counts = [[self._count(task)] for task in tasks]
        most = max(count for (count,) in counts)
        check = self._remote(check_jobs, most)
        reference = check.remote(tasks, counts, most, self._sweeper.command)
        while not self._ray.wait([reference], timeout=_PAUSE)[0]:
            if signals.stops:
                self._ray.cancel(reference)
                return EXIT_INTERRUPTED
        status, messages = self._ray.get(reference)
        if messages:
            self._view.event(messages.rstrip(), logging.WARNING if status else logging.INFO)
        return status if status >= 0 else EXIT_FAILED

    def _train_all(self, signals: Signals) -> None:
        heard = 0
        while True:
            if not signals.stops:
                self._submit()
            elif signals.stops > heard:
                heard = signals.stops
                self._cancel(signals)
            if not self._pending and (signals.stops or not self._looks_again()):
                break
            for reference in self._ray.wait(list(self._pending), timeout=_PAUSE)[0]:
                self._finish(self._pending.pop(reference), reference)
            self._watch()

    def _submit(self) -> None:
        while not self._is_full and (task := self._board.next_for()):
            try:
                self._refuse_too_many(task)
            except UserError as error:  # another start has begun it on more
                self._board.unusable(task, error)
                continue
            count = self._count(task)
            attempt = self._remote(
                run_task, count, max_retries=_RETRIES, retry_exceptions=[ProcessKilledError]
            )
            self._pending[attempt.remote(task, count, self._sweeper)] = task

    def _looks_again(self) -> bool:
        """Whether tasks that other processes had are tried once more, anything having changed."""
        if self._has_looked:
            return False
        self._has_looked = True
        self._board.take_up_elsewhere()
        self._submit()
        return bool(self._pending)

    def _cancel(self, signals: Signals) -> None:
        """Ray interrupts its tasks, and these stop their processes, which takes a moment."""
        self._view.event(STOPPING, logging.WARNING)
        for reference in self._pending:
            self._ray.cancel(reference, force=signals.stops > 1)
        while signals.stops == 1 and any(t.folder.is_in_use for t in self._pending.values()):
            signals.wait(_PAUSE)

    def _finish(self, task: Task, reference: Any) -> None:
        try:
            outcome: Outcome = self._ray.get(reference)
        except self._ray.exceptions.TaskCancelledError:
            self._board.put_back(task)
            return
        except self._ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            text = f"lost {_RETRIES + 1} times ({reason}); the next start takes it up"
            self._board.unusable(task, text, code=None)
            return
        self._note_start(task, outcome.record)
        if outcome.record and outcome.how == "ended":
            self._has_looked = False
            self._board.ended(task, where(outcome.record), outcome.record)
            if outcome.record.get("exit_code") == EXIT_NO_SPACE and not self._is_full:
                self._take_back_queued()
        elif outcome.record:
            self._board.ended_elsewhere(task, outcome.record)
        elif outcome.how == "taken elsewhere":
            self._board.taken_elsewhere(task)
        else:
            self._board.unusable(task, outcome.reason)

    def _take_back_queued(self) -> None:
        """The disk that the runs share is full; those that run may still end well."""
        self._is_full = True
        self._view.event("error: no space is left. No more jobs are started.", logging.ERROR)
        for reference, task in self._pending.items():
            if task.name not in self._where:
                self._ray.cancel(reference)

    def _watch(self) -> None:
        """Notes which tasks have begun, as the shared folder tells, and shows them."""
        if time.monotonic() - self._watched < _WATCH_SECONDS:
            return
        self._watched = time.monotonic()
        for task in self._pending.values():
            self._note_start(task, record_if_readable(task.folder))
        running = {
            f"{self._where[task.name]} {number}": task.folder
            for number, task in enumerate(self._pending.values(), start=1)
            if task.name in self._where
        }
        self._view.update(self._board.states, running)

    def _note_start(self, task: Task, record: Record | None) -> None:
        if record and record.get("sweep") == self._sweeper.name and task.name not in self._where:
            self._where[task.name] = where(record)
            self._board.began(task, where(record))


def where(record: Record) -> str:
    """`host:gpu0`: host and slot of the latest attempt."""
    return f"{record['host']}:{record['device']}"


def check_jobs(
    tasks: Sequence[Task],
    counts: Sequence[list[int]],
    devices: int,
    command: Sequence[str] | None,
) -> tuple[int, str]:
    """As a Ray task: makes a `Check`; returns its exit status and what it printed."""
    check = Check(tasks, counts, [_slot_from_ray(devices)], command, stderr=subprocess.PIPE)
    messages = check.messages()
    return cast(int, check.status()), messages


def run_task(task: Task, count: int, sweeper: Sweeper) -> Outcome:
    """As a Ray task: makes an attempt.

    Raises:
        ProcessKilledError: for Ray to try again.
    """
    try:
        attempt = _begin(task, _slot_from_ray(count), sweeper)
    except FolderInUseError:
        return Outcome("taken elsewhere")
    except NothingToDoError as found:
        return Outcome("ended elsewhere", found.record)
    except (UserError, OSError) as error:
        return Outcome("unusable", reason=str(error))
    try:
        while not attempt.ended():
            time.sleep(_PAUSE)
    except KeyboardInterrupt:  # the Ray task is cancelled
        attempt.stop()
        attempt.wait()
    try:
        record = attempt.finish()
    except (UserError, OSError) as error:
        return Outcome("unusable", reason=str(error))
    if record["state"] == "failed" and (record["exit_code"] or 0) < 0:
        raise ProcessKilledError(record["reason"])
    return Outcome("ended", record)


def _begin(task: Task, slot: Slot, sweeper: Sweeper) -> Attempt:
    """Begins the attempt once an earlier one of the same sweeper, its Ray worker lost, has ended.

    Its process was told to stop when the Ray worker died, and is about to write its checkpoint.
    """
    while True:
        try:
            return Attempt(task, slot, sweeper)
        except FolderInUseError:
            record = record_if_readable(task.folder)
            if not record or record.get("sweep") != sweeper.name:
                raise
            time.sleep(_PAUSE)


def _slot_from_ray(count: int) -> Slot:
    """The devices that Ray gives to this Ray task."""
    ray = _import_ray()
    gpus = ray.get_gpu_ids()
    if gpus:
        return Slot(tuple(map(str, gpus)), os.environ[VISIBLE])
    return Slot(tuple(map(str, range(count))), "", "cpu")


@contextlib.contextmanager
def _in_folder(path: str) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


def _import_ray() -> ModuleType:
    try:
        import ray  # noqa: PLC0415 (an optional extra)
    except ImportError as error:
        raise UserError(f"--cluster needs Ray ({error}): pip install -e '.[cluster]'") from None
    return ray

"""A sweep on this machine: one process a task, one task a slot."""

import contextlib
import logging
import os
import select
import signal
from collections.abc import Sequence
from datetime import datetime
from types import FrameType

from common.errors import UserError
from common.exit_status import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NO_SPACE,
    EXIT_OK,
    EXIT_USER_ERROR,
)
from common.results.run_folder import FolderInUseError
from common.sweeps.attempt import Attempt, Check, NothingToDoError, Sweeper, Task
from common.sweeps.board import Board, sizes_for
from common.sweeps.slots import Slot
from common.sweeps.view import PlainView

_WAKE_SECONDS = 0.5
STOPPING = "stopping: running jobs write a checkpoint; once more to stop at once"


class LocalScheduler:
    """Gives the tasks of a board to slots until all are done or it is asked to stop.

    Args:
        board: the jobs.
        slots: all there are.
        sweeper: this start of `main.py`.
        view: shows how it goes.
    """

    def __init__(
        self, board: Board, slots: Sequence[Slot], sweeper: Sweeper, view: PlainView
    ) -> None:
        self._board = board
        self._slots = slots
        self._sweeper = sweeper
        self._view = view
        self._running: dict[Slot, Attempt] = {}
        self._takes_jobs = True
        self._status = EXIT_OK

    def run(self) -> int:
        """Runs the sweep; returns the exit status of `main.py`."""
        with Signals() as signals:
            if self._board.queued:
                status = self._check(signals)
                if status != EXIT_OK:
                    return status
            self._train_all(signals)
        return self._status or self._board.exit_status

    def _check(self, signals: "Signals") -> int:
        """Finds what would keep a job from starting before any is; returns an exit status."""
        tasks = self._board.queued
        counts = [sizes_for(self._board, task, self._slots) for task in tasks]
        check = Check(tasks, counts, self._slots, self._sweeper.command)
        while (status := check.status()) is None:
            if signals.stops:
                check.stop()
            signals.wait(_WAKE_SECONDS)
        if signals.stops:
            return EXIT_INTERRUPTED
        if status == EXIT_OK:
            seconds = (datetime.now().astimezone() - self._sweeper.started).total_seconds()
            text = f"{len(tasks)} job(s) checked, {seconds:.1f} s after the start"
            self._view.event(text, logging.INFO)
        return status if status >= 0 else EXIT_FAILED

    def _train_all(self, signals: "Signals") -> None:
        heard = 0
        try:
            while True:
                if signals.stops > heard:
                    heard = signals.stops
                    self._stop(at_once=heard > 1)
                self._fill_slots()
                if not self._running and not self._looks_again():
                    break
                running = {slot.name: a.task.folder for slot, a in self._running.items()}
                self._view.update(self._board.states, running)
                signals.wait(_WAKE_SECONDS)
                self._reap()
        finally:
            self._view.close()
            for attempt in self._running.values():  # this is a defect: leave nothing running
                attempt.stop()
                attempt.wait()

    def _stop(self, at_once: bool) -> None:
        self._takes_jobs = False
        self._view.event(STOPPING, logging.WARNING)
        for attempt in self._running.values():
            if at_once:
                attempt.kill()
            else:
                attempt.stop()

    def _fill_slots(self) -> None:
        for slot in self._slots:
            while self._takes_jobs and slot not in self._running:
                task = self._board.next_for(len(slot.devices))
                if task is None:
                    break
                self._begin(task, slot)

    def _looks_again(self) -> bool:
        """Whether a task that another process had when its turn came can be begun now."""
        if self._takes_jobs:
            self._board.take_up_elsewhere()
            self._fill_slots()
        return bool(self._running)

    def _begin(self, task: Task, slot: Slot) -> None:
        try:
            self._running[slot] = Attempt(task, slot, self._sweeper)
            self._board.began(task, slot.name)
        except FolderInUseError:
            self._board.taken_elsewhere(task)
        except NothingToDoError as found:
            self._board.ended_elsewhere(task, found.record)
        except UserError as error:
            self._board.unusable(task, error)
        except OSError as error:
            self._give_up(task, error)

    def _reap(self) -> None:
        for slot, attempt in list(self._running.items()):
            if attempt.ended():
                del self._running[slot]
                try:
                    record = attempt.finish()
                except (UserError, OSError) as error:
                    self._give_up(attempt.task, error)
                    continue
                self._board.ended(attempt.task, slot.name, record)
                if record.get("exit_code") == EXIT_NO_SPACE:
                    self._take_no_more("no space is left")

    def _give_up(self, task: Task, error: Exception) -> None:
        self._board.put_back(task)
        self._take_no_more(f"{task.folder.path}: {error}")

    def _take_no_more(self, trouble: str) -> None:
        """The machine or its disk is in trouble, so that the next task would fare no better."""
        self._takes_jobs = False
        self._status = EXIT_USER_ERROR
        self._view.event(f"error: {trouble}. No more jobs are started.", logging.ERROR)


class Signals:
    """SIGINT, SIGTERM, and the end of a child, as something to wait for.

    Attributes:
        stops: how many SIGINT and SIGTERM have come.
    """

    def __init__(self) -> None:
        self.stops = 0

    def __enter__(self) -> "Signals":
        self._reading, writing = os.pipe()
        for end in (self._reading, writing):
            os.set_blocking(end, False)
        self._writing = writing
        self._wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._handlers = {
            signal.SIGINT: signal.signal(signal.SIGINT, self._count),
            signal.SIGTERM: signal.signal(signal.SIGTERM, self._count),
            # That it comes is all that matters.
            signal.SIGCHLD: signal.signal(signal.SIGCHLD, lambda *_: None),
        }
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._reading)
        os.close(self._writing)

    def _count(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.stops += 1

    def wait(self, seconds: float) -> None:
        """Waits until a signal has come since the last call, at most so long."""
        select.select([self._reading], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self._reading, 4096)

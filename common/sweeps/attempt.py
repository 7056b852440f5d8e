"""One attempt at a task: its folder is locked, its process runs, how it ended is recorded."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, cast

import common
from common.configuration.sweep import Job
from common.errors import UserError
from common.exit_status import EXIT_INTERRUPTED, EXIT_NO_SPACE, EXIT_OK, EXIT_USER_ERROR
from common.results.run_folder import Attempter, Record, RunFolder
from common.sweeps.message import CheckMessage, TaskMessage, TrainMessage
from common.sweeps.slots import Slot

# Not by `-m`: modules in the current folder would be imported in place of Python's and ours.
_RUN_WORKER = """
import sys
sys.path[:] = filter(None, sys.path)
from common.sweeps.worker import main
sys.exit(main())
"""
WORKER = (sys.executable, "-c", _RUN_WORKER)
_TAIL = 4096  # bytes of the log in which its last line is looked for


@dataclass(frozen=True)
class Task:
    """What a scheduler hands out.

    Attributes:
        job: what is to be trained.
        folder: where its run is.
        message: what its process is told besides.
    """

    job: Job
    folder: RunFolder
    message: TaskMessage = dataclasses.field(default_factory=TaskMessage, hash=False)

    @property
    def name(self) -> str:
        """The job's name, that of its folder."""
        return self.job.folder


@dataclass(frozen=True)
class Sweeper:
    """One start of `main.py`, as who makes attempts.

    Attributes:
        name: tells it from others.
        started: when it started, with the time zone.
        force_rerun: whether older results are set aside first.
        command: what a job's process executes, None for `WORKER`; it reads a message (see
            `common.sweeps.message`) from its standard input.
    """

    name: str
    started: datetime
    force_rerun: bool = False
    command: tuple[str, ...] | None = None

    @staticmethod
    def new(force_rerun: bool = False, command: Sequence[str] | None = None) -> "Sweeper":
        """One that starts now."""
        name = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
        started = datetime.now().astimezone()
        return Sweeper(name, started, force_rerun, None if command is None else tuple(command))

    def replaces(self, record: Record | None) -> bool:
        """Whether the folder of a run of this record (None: without any) is to be set aside.

        What was trained since this start stays: by itself, which the record says (the hosts' clocks
        may differ), or by another start at the same time.
        """
        return self.force_rerun and not self._made(record) and not self._saw(record)

    def leaves(self, record: Record) -> bool:
        """Whether the run is done, or another start has tried it during this one and failed."""
        if record["state"] == "done":
            return True
        return is_failed_for_good(record) and not self._made(record) and self._saw(record)

    def _made(self, record: Record | None) -> bool:
        """Whether the latest attempt is this start's."""
        return record is not None and record.get("sweep") == self.name

    def _saw(self, record: Record | None) -> bool:
        """Whether the latest attempt ended, or at least started, since this start."""
        moment = (record.get("ended") or record.get("started")) if record else None
        return moment is not None and datetime.fromisoformat(moment) >= self.started


class NothingToDoError(Exception):
    """Another start of `main.py` has done the job in the meantime, or failed to.

    Attributes:
        record: the run's.
    """

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.record = record


class Attempt:
    """A task's process, which has begun.

    Args:
        task: the task.
        slot: which it has to itself.
        sweeper: who makes the attempt.

    Raises:
        FolderInUseError: another process trains in the folder.
        NothingToDoError: the job is done, or has failed since this sweep was started.
        UserError: the folder cannot be used.
        OSError: the process cannot be started, or that it was cannot be written down.
    """

    def __init__(self, task: Task, slot: Slot, sweeper: Sweeper) -> None:
        self.task = task
        self.slot = slot
        self._is_stopped = False
        self._lock = _claim(task, sweeper)
        try:
            self._process, self._log_start = self._spawn(sweeper)
        except BaseException:
            self._lock.close()
            raise

    def _spawn(self, sweeper: Sweeper) -> tuple[subprocess.Popen[bytes], int]:
        """Starts the process; returns it, and where its part of the log begins."""
        folder = self.task.folder
        with open(folder.log_path, "ab") as log:
            log_start = log.tell()  # which the process will move: it shares the position
            process = _spawn(
                sweeper.command,
                self.slot,
                stdout=log,
                stderr=log,
                pass_fds=[self._lock.fileno()],
            )
            try:
                folder.begin(self.task.job.settings, self._attempter(process.pid, sweeper))
                _tell(process, self._message())
            except BaseException:
                process.kill()
                process.wait()
                raise
            return process, log_start

    def _attempter(self, pid: int, sweeper: Sweeper) -> Attempter:
        return {
            "host": socket.gethostname(),
            "pid": pid,
            "device": self.slot.name,
            "sweep": sweeper.name,
        }

    def _message(self) -> TrainMessage:
        return {
            "action": "train",
            "parent": os.getpid(),
            "settings": dataclasses.asdict(self.task.job.settings),
            "folder": str(self.task.folder.path),
            "log_file": self.task.folder.log_path.name,
            "devices": len(self.slot.devices),
            **self.task.message,
        }

    def ended(self) -> bool:
        """Whether the process has."""
        return self._process.poll() is not None

    def wait(self) -> None:
        """Waits until the process has ended."""
        self._process.wait()

    def stop(self) -> None:
        """Asks the process to write a checkpoint and end."""
        self._is_stopped = True
        self._process.terminate()

    def kill(self) -> None:
        """Ends the process and all that it started."""
        self._is_stopped = True
        _kill_group(self._process)

    def finish(self) -> Record:
        """Records how the process, which must have ended, did so, and frees the folder.

        Returns:
            The run's record.

        Raises:
            UserError, OSError: it cannot be recorded.
        """
        code = self._process.returncode
        if self._is_stopped and code < 0:  # before it could heed the signal, or by ours
            code = EXIT_INTERRUPTED
        try:
            return self.task.folder.end(code, self._reason(code))
        finally:
            self._lock.close()

    def _reason(self, code: int) -> str | None:
        """A line that says why the attempt failed, None if it did not."""
        if code == EXIT_INTERRUPTED:
            return None
        if code < 0:
            return f"killed by signal {-code} ({signal.strsignal(-code)})"
        if code == EXIT_OK and self.task.folder.state != "done":
            return "the process ended well without having finished the job"
        return last_line(self.task.folder.log_path, self._log_start) if code else None


def _claim(task: Task, sweeper: Sweeper) -> IO[str]:
    """Locks the run's folder; a folder to be replaced is set aside."""
    if sweeper.force_rerun and sweeper.replaces(record_if_readable(task.folder)):
        task.folder.set_aside()
    lock = task.folder.acquire()
    try:
        task.folder.check(task.job.settings)
        record = task.folder.record
        if record and sweeper.leaves(record):
            raise NothingToDoError(record)
    except BaseException:
        lock.close()
        raise
    return lock


def record_if_readable(folder: RunFolder) -> Record | None:
    """The run's record, None if there is none or it cannot be read."""
    try:
        return folder.record
    except UserError:
        return None


class Check:
    """A process that finds what would keep jobs from starting, its messages going to the console.

    Args:
        tasks: of equal messages.
        counts: for each, the numbers of devices that it may be given.
        slots: all there are.
        command: what the process executes, None for `WORKER`.
        **streams: where its output goes instead, see `subprocess.Popen`.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        counts: Sequence[list[int]],
        slots: Sequence[Slot],
        command: Sequence[str] | None = None,
        **streams: Any,
    ) -> None:
        everything = ",".join(dict.fromkeys(slot.visible for slot in slots))
        union = dataclasses.replace(slots[0], visible=everything)
        self._process = _spawn(command, union, **streams)
        jobs = [dataclasses.asdict(task.job.settings) for task in tasks]
        needed = sum(len(slot.devices) for slot in slots)
        message: CheckMessage = {
            "action": "check",
            "parent": os.getpid(),
            "devices": needed,
            "jobs": list(zip(jobs, counts, strict=True)),
            **tasks[0].message,
        }
        _tell(self._process, message)

    def stop(self) -> None:
        """Ends it; there is nothing it would have to save."""
        _kill_group(self._process)

    def messages(self) -> str:
        """Waits for its end; returns what it has written to standard error, that being a pipe."""
        messages = cast(IO[bytes], self._process.stderr).read()
        self._process.wait()
        return messages.decode(errors="replace")

    def status(self) -> int | None:
        """Its exit status, or None while it runs."""
        return self._process.poll()


def _spawn(command: Sequence[str] | None, slot: Slot, **streams: Any) -> subprocess.Popen[bytes]:
    """Starts a process of the project's that sees the slot's devices alone.

    It is the leader of a session, so that Ctrl-C reaches the scheduler alone, which passes it on.
    """
    root = str(Path(common.__file__).parents[1])
    path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
    environment = {
        "TF_CPP_MIN_LOG_LEVEL": "2",  # TensorFlow prints pages about the CPU unless told not to
        **os.environ,
        "CUDA_VISIBLE_DEVICES": slot.visible,
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.Popen(
        command or WORKER, env=environment, stdin=subprocess.PIPE, start_new_session=True, **streams
    )


def _tell(process: subprocess.Popen[bytes], message: Mapping[str, Any]) -> None:
    try:
        with cast(IO[bytes], process.stdin) as stream:
            stream.write(json.dumps(message).encode())
    except BrokenPipeError:
        pass  # it ended at once; its exit code says so


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def last_line(path: Path, start: int = 0) -> str | None:
    """The last line with anything on it that a log has from byte `start` on, or None.

    Where it holds what no terminal should be sent, question marks stand.
    """
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - _TAIL))
            lines = file.read(_TAIL).decode(errors="replace").splitlines()
    except OSError:
        return None
    line = next((line.strip() for line in reversed(lines) if line.strip()), None)
    return line and "".join(c if c.isprintable() else "?" for c in line)


def is_failed_for_good(record: Record | None) -> bool:
    """Whether the latest attempt failed in a way that another is likely to.

    A run that was killed, or stopped for something that was to be mended, is taken up again.
    """
    if record is None or record["state"] != "failed":
        return False
    code = record.get("exit_code")
    return code is None or (code >= 0 and code not in (EXIT_USER_ERROR, EXIT_NO_SPACE))

"""One attempt at a job: its folder is locked, its process runs, how it ended is recorded."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import common
from common.configuration.sweep import Job
from common.errors import UserError
from common.exit_status import EXIT_INTERRUPTED, EXIT_NO_SPACE, EXIT_OK, EXIT_USER_ERROR
from common.results.run_folder import RunFolder

WORKER = (sys.executable, "-m", "common.sweeps.worker")
_TAIL = 4096  # bytes of the log in which its last line is looked for


@dataclass(frozen=True)
class Task:
    """A job, its folder, and what its process is told besides.

    Attributes:
        job: the `Job`.
        folder: its `RunFolder`.
        message: JSON-able dictionary of what its process is told besides.
    """

    job: Job
    folder: RunFolder
    message: dict = dataclasses.field(default_factory=dict, hash=False)

    @property
    def name(self):
        """The job's name, that of its folder."""
        return self.job.folder


@dataclass(frozen=True)
class Sweeper:
    """Who makes attempts.

    Attributes:
        name: tells this start of `main.py` from others.
        started: when it started, with the time zone.
        force_rerun: whether older results are set aside first.
        command: what a job's process executes, None for `WORKER`; it reads the job from its
            standard input.
    """

    name: str
    started: datetime
    force_rerun: bool = False
    command: tuple[str, ...] | None = None

    @staticmethod
    def new(force_rerun=False, command=None):
        """One that starts now."""
        name = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
        return Sweeper(name, datetime.now().astimezone(), force_rerun, command)

    def replaces(self, record):
        """Whether a folder of this record (None: without any) is to be set aside.

        What was trained since this start stays: by itself, which the record says (the hosts' clocks
        may differ), or by another start at the same time.
        """
        return self.force_rerun and not self._made(record) and not self._saw(record)

    def leaves(self, record):
        """Whether the job is done, or another start has tried it during this one and failed."""
        if record["state"] == "done":
            return True
        return is_failed_for_good(record) and not self._made(record) and self._saw(record)

    def _made(self, record):
        """Whether the latest attempt is this start's."""
        return record is not None and record.get("sweep") == self.name

    def _saw(self, record):
        """Whether the latest attempt ended, or at least started, since this start."""
        moment = record and (record.get("ended") or record.get("started"))
        return bool(moment) and datetime.fromisoformat(moment) >= self.started


class NothingToDoError(Exception):
    """Another start of `main.py` has done the job in the meantime, or failed to.

    Attributes:
        record: what the folder says, see `RunFolder`.
    """

    def __init__(self, record):
        super().__init__(record)
        self.record = record


class Attempt:
    """The process of a job, which has begun.

    Args:
        task: the `Task`.
        slot: the `Slot` it runs on.
        sweeper: the `Sweeper`.

    Raises:
        FolderInUseError: another process trains in the folder.
        NothingToDoError: the job is done, or has failed since this sweep was started.
        UserError: the folder cannot be used.
        OSError: the process cannot be started, or that it was cannot be written down.
    """

    def __init__(self, task, slot, sweeper):
        self.task = task
        self.slot = slot
        self._is_stopped = False
        self._lock = _claim(task, sweeper)
        try:
            self._process, self._log_start = self._spawn(sweeper)
        except BaseException:
            self._lock.close()
            raise

    def _spawn(self, sweeper):
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
                folder.begin(self.task.job.settings, self._identity(process.pid, sweeper))
                _tell(process, self._message())
            except BaseException:
                process.kill()
                process.wait()
                raise
            return process, log_start

    def _identity(self, pid, sweeper):
        return {
            "host": socket.gethostname(),
            "pid": pid,
            "device": self.slot.name,
            "sweep": sweeper.name,
        }

    def _message(self):
        return {
            "action": "train",
            "settings": dataclasses.asdict(self.task.job.settings),
            "folder": str(self.task.folder.path),
            "log_file": self.task.folder.log_path.name,
            "devices": len(self.slot.devices),
            **self.task.message,
        }

    def ended(self):
        """Whether the process has."""
        return self._process.poll() is not None

    def wait(self):
        """Waits until the process has ended."""
        self._process.wait()

    def stop(self):
        """Asks the job to write a checkpoint and end."""
        self._is_stopped = True
        self._process.terminate()

    def kill(self):
        """Ends the job's process and all that it started."""
        self._is_stopped = True
        _kill_group(self._process)

    def finish(self):
        """Records how the process ended and frees the folder.

        Returns:
            The record, see `RunFolder`.

        Raises:
            UserError, OSError: it cannot be recorded.
        """
        code = self._process.returncode
        if self._is_stopped and code < 0:  # before it could heed the signal, or by ours
            code = EXIT_INTERRUPTED
        try:
            self.task.folder.end(code, self._reason(code))
            return self.task.folder.record
        finally:
            self._lock.close()

    def _reason(self, code):
        """A line that says why the job failed, None if it did not."""
        if code == EXIT_INTERRUPTED:
            return None
        if code < 0:
            return f"killed by signal {-code} ({signal.strsignal(-code)})"
        if code == EXIT_OK and self.task.folder.state != "done":
            return "the process ended well without having finished the job"
        return last_line(self.task.folder.log_path, self._log_start) if code else None


def _claim(task, sweeper):
    """Locks the job's folder; a folder to be replaced is set aside."""
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


def record_if_readable(folder):
    """What a `RunFolder` says, None if it says nothing or something else."""
    try:
        return folder.record
    except UserError:
        return None


class Check:
    """A process that finds what would keep jobs from starting, its messages going to the console.

    Args:
        tasks: `Task`s of equal options.
        counts: for each, the numbers of devices that it may be given.
        slots: all `Slot`s.
        command: what the process executes, None for `WORKER`.
        **streams: where its output goes instead, see `subprocess.Popen`.
    """

    def __init__(self, tasks, counts, slots, command=None, **streams):
        everything = ",".join(dict.fromkeys(slot.visible for slot in slots))
        union = dataclasses.replace(slots[0], visible=everything)
        self._process = _spawn(command, union, **streams)
        jobs = [dataclasses.asdict(task.job.settings) for task in tasks]
        needed = sum(len(slot.devices) for slot in slots)
        message = {"action": "check", "jobs": list(zip(jobs, counts, strict=True))}
        _tell(self._process, {**message, "devices": needed, **tasks[0].message})

    def stop(self):
        """Ends it; there is nothing it would have to save."""
        _kill_group(self._process)

    def messages(self):
        """Waits for its end; returns what it has written to standard error, that being a pipe."""
        messages = self._process.stderr.read()
        self._process.wait()
        return messages.decode(errors="replace")

    def status(self):
        """Its exit status, or None while it runs."""
        return self._process.poll()


def _spawn(command, slot, **streams):
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


def _tell(process, message):
    text = json.dumps({**message, "parent": os.getpid()})
    try:
        with process.stdin as stream:
            stream.write(text.encode())
    except BrokenPipeError:
        pass  # it ended at once; its exit code says so


def _kill_group(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def last_line(path, start=0):
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


def is_failed_for_good(record):
    """Whether the latest attempt failed in a way that another is likely to.

    A job that was killed, or stopped for something that was to be mended, is taken up again.
    """
    if record is None or record["state"] != "failed":
        return False
    code = record.get("exit_code")
    return code is None or (code >= 0 and code not in (EXIT_USER_ERROR, EXIT_NO_SPACE))

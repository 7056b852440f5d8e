"""A run's folder: its files, what it is, and how far it has come (specification, section 7)."""

import contextlib
import dataclasses
import fcntl
import itertools
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any, TypedDict

from common.configuration.settings import Settings, complete_record
from common.errors import UserError
from common.exit_status import EXIT_INTERRUPTED
from common.files import atomic_write

_LOG = logging.getLogger(__name__)

FORMAT = 1
STATES = ("running", "done", "failed", "interrupted")
# Whoever looks whether a folder is in use holds its lock for an instant.
_LOCK_TRIES, _LOCK_PAUSE = 5, 0.02


class FolderInUseError(UserError):
    """Another process trains in the folder."""


class Attempter(TypedDict, total=False):
    """Who makes an attempt.

    Attributes:
        host: name of the machine.
        pid: of the process that trains.
        device: name of the slot.
        sweep: name of the `Sweeper`, if one makes it.
    """

    host: str
    pid: int
    device: str
    sweep: str


class _WhatItIs(TypedDict):
    format: int
    settings: dict[str, Any]
    state: str
    conditions: dict[str, Any]


class Record(_WhatItIs, Attempter, total=False):
    """What `run.json` holds: what the run is, its state, and who made the latest attempt when.

    Attributes:
        format: `FORMAT`.
        settings: the job's `Settings`, by key.
        state: one of `STATES`.
        conditions: what else the results depend on; empty until training has begun.
        environment: software versions and devices of the latest attempt.
        earlier_environments: the others among the attempts before.
        attempts: how many there were.
        started: of the latest attempt, ISO 8601 with the time zone.
        ended: likewise; None until it has ended.
        exit_code: of the latest attempt's process, negative for the signal that killed it.
        reason: a line that says why it failed.
        step: name of the step that trains, and `why`.
        missing_metrics: iterations whose metrics failed, -1 for before the first.
    """

    environment: dict[str, Any]
    earlier_environments: list[dict[str, Any]]
    attempts: int
    started: str
    ended: str | None
    exit_code: int | None
    reason: str | None
    step: dict[str, str]
    missing_metrics: list[int]


class RunFolder:
    """The files that a run leaves behind.

    `run.json` says what the folder holds, see `Record`. The states:

    - "running": an attempt was begun. If no process holds the lock, it ended without a word: it
      was killed together with its scheduler, or its machine was lost.
    - "done": the last iteration was trained and its results are on disk.
    - "failed": the attempt ended with an error, or was killed (a negative exit code).
    - "interrupted": it stopped on request, with a checkpoint.

    Args:
        path: the folder; it need not exist.
        log_file: name of the run's log in it.
        restore_from: folder of the checkpoint to go on from, if it is not the run's own.
        defaults: `{key: value}` of the configuration's keys that an older record lacks, where they
            are not the keys' own: the variant's choices.
    """

    def __init__(
        self,
        path: str | Path,
        log_file: str = "worker.log",
        restore_from: str | Path | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self._defaults = defaults or {}
        self.record_path = self.path / "run.json"
        self.log_path = self.path / log_file
        self.metrics_path = self.path / "metrics.csv"
        self.times_path = self.path / "time.txt"
        self.progress_path = self.path / "progress.json"
        self.samples = self.path / "sample"
        self.checkpoints = self.path / "checkpoint"
        self.restore_from = Path(restore_from or self.checkpoints)

    def shadow(self, root: str | Path) -> "RunFolder":
        """A folder below `root` for a process that trains the same run and leaves no results.

        It starts from this run's checkpoint; several hosts train so, of which one writes.
        """
        name, log_file = self.path.name, self.log_path.name
        return RunFolder(Path(root) / name, log_file, self.checkpoints, self._defaults)

    @property
    def state(self) -> str:
        """ "new" or one of `STATES`.

        Raises:
            UserError: the folder holds something else, such as the original's results.
        """
        record = self.record
        return record["state"] if record else "new"

    @property
    def record(self) -> Record | None:
        """What `run.json` says; None if the folder has no results.

        Raises:
            UserError: the folder holds something else, such as the original's results.
        """
        if not self.path.exists() or (self.path.is_dir() and not any(self._contents())):
            return None
        return self._read_record()

    def _contents(self) -> Iterator[Path]:
        # The log alone says nothing: a run that failed at its start leaves it. Nor do hidden files:
        # they are the lock, and what atomic_write leaves when the process is killed.
        log = self.log_path.name
        return (p for p in self.path.iterdir() if p.name != log and not p.name.startswith("."))

    def _read_record(self) -> Record:
        try:
            return _checked(json.loads(self.record_path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise UserError(
                f"{self.path} has results but no run.json: the original's TensorFlow 1 code, or "
                "something else, wrote them, and they cannot be continued. Move the folder away, "
                "or choose another with --set result_root_folder=..."
            ) from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"{self.record_path} cannot be read ({error!r}): move the folder away to start "
                "anew."
            ) from None

    def check(self, settings: Settings) -> None:
        """Refuses a folder that was started with another configuration.

        Raises:
            UserError: names the keys that differ.
        """
        record = self.record
        if record is None:
            return
        recorded = complete_record(record["settings"], self._defaults)
        self._refuse_changes("another configuration", recorded, dataclasses.asdict(settings))

    def start(
        self, settings: Settings, conditions: dict[str, Any], environment: dict[str, Any]
    ) -> None:
        """Records what the run is, or checks that it is what was recorded.

        Args:
            settings: the job's.
            conditions: JSON-able dictionary of what else the results depend on: the data and where
                they came from, the network behind the metrics, the number of replicas.
            environment: JSON-able dictionary of software versions and devices. If it is not the
                recorded one, a warning names what differs, and both are recorded.

        Raises:
            UserError: the folder was started with another configuration or other conditions.
        """
        self.check(settings)
        record = self.record or _new_record(settings)
        if not record["conditions"]:
            record["conditions"], record["environment"] = conditions, environment
            self._write_record(record)
        self._refuse_changes("other conditions", record["conditions"], conditions)
        before = record.get("environment", {})
        # What an older version of this code did not record is not known to have changed.
        if changes := _changes(before, {key: environment.get(key) for key in before}):
            self._change_environment(record, environment, changes)
        for folder in (self.samples, self.checkpoints):
            folder.mkdir(exist_ok=True)

    def _change_environment(
        self, record: Record, environment: dict[str, Any], changes: str
    ) -> None:
        _LOG.warning(
            "%s goes on in another environment (%s): its numbers may differ in last digits from "
            "those of a run in one environment",
            self.path,
            changes,
        )
        before, earlier = record["environment"], record.get("earlier_environments", [])
        if before not in earlier:
            earlier = [*earlier, before]
        self._write_record({**record, "environment": environment, "earlier_environments": earlier})

    def _refuse_changes(
        self, what: str, recorded: Mapping[str, Any], ours: Mapping[str, Any]
    ) -> None:
        if changes := _changes(recorded, ours):
            raise UserError(
                f"{self.path} was started with {what} ({changes}). Use the same, or "
                "another result_root_folder, or move the folder away."
            )

    def set_aside(self) -> None:
        """Renames the folder, if there is one, to a name that is free; nothing is deleted.

        Raises:
            UserError: another process trains in the folder, or the folder cannot be renamed.
        """
        if not self.path.exists():
            return
        numbers = itertools.count(1)
        names = (self.path.with_name(f"{self.path.name}.old{n}") for n in numbers)
        try:
            with self.lock():
                self.path.rename(next(path for path in names if not path.exists()))
        except OSError as error:
            raise UserError(f"{self.path} cannot be set aside: {error.strerror}.") from None

    def begin(self, settings: Settings, attempter: Attempter) -> None:
        """Records what the run is and that an attempt begins. The caller holds the lock.

        Args:
            settings: the job's, which `check` accepts.
            attempter: who makes the attempt.

        Raises:
            OSError: the record cannot be written.
        """
        record = self.record or _new_record(settings)
        begun: Record = {
            **record,
            **attempter,
            "settings": dataclasses.asdict(settings),  # an older record lacks some keys
            "state": "running",
            "started": _now(),
            "ended": None,
            "exit_code": None,
            "reason": None,
            "attempts": record.get("attempts", 0) + 1,
        }
        self._write_record(begun)

    def end(self, exit_code: int, reason: str | None = None) -> Record:
        """Records how the attempt ended, unless the run is done. The caller holds the lock.

        Args:
            exit_code: of the process; negative for the signal that killed it.
            reason: a line for people, if there is one.

        Returns:
            The record as it is now.

        Raises:
            UserError: the record cannot be read any more.
            OSError: it cannot be written.
        """
        record = self._read_record()
        if record["state"] != "done":
            record["state"] = "interrupted" if exit_code == EXIT_INTERRUPTED else "failed"
        record |= {"ended": _now(), "exit_code": exit_code, "reason": reason}
        self._write_record(record)
        return record

    def note_step(self, name: str, why: str) -> None:
        """Records which step trains, and the reason."""
        record = self._read_record()
        step = {"name": name, "why": why}
        if record.get("step") != step:
            self._write_record({**record, "step": step})

    def finish(self) -> None:
        """Records that the run is done."""
        self._write_record({**self._read_record(), "state": "done"})

    def note_metrics(self, *, made: Iterable[int] = (), missing: Iterable[int] = ()) -> None:
        """Records at which iterations the metrics failed, or were made after all.

        Args:
            made: iterations, -1 for before the first.
            missing: likewise.
        """
        record = self._read_record()
        known = record.get("missing_metrics", [])
        ids = sorted({*known, *missing} - {*made})
        if ids != known:
            self._write_record({**record, "missing_metrics": ids})

    def _write_record(self, record: Record) -> None:
        with atomic_write(self.record_path) as file:
            json.dump(record, file, indent=2)
            file.write("\n")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps every other process out of the folder while it is held; creates the folder.

        Raises:
            FolderInUseError: another process holds it.
        """
        with self.acquire():
            yield

    def acquire(self) -> IO[str]:
        """Locks the folder, creating it.

        Returns:
            An open file. The lock lasts until it is closed, also by every process that inherits
            it: a child goes on holding it when its parent is killed.

        Raises:
            FolderInUseError: another process holds it.
        """
        for _ in range(_LOCK_TRIES):
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self._lock_path, "w")  # noqa: SIM115 (the caller closes it)
            if _locks(file, fcntl.LOCK_EX) and self._is_lock(file):
                return file
            file.close()
            time.sleep(_LOCK_PAUSE)
        raise FolderInUseError(f"{self.path}: another process is running this job.")

    @property
    def is_in_use(self) -> bool:
        """Whether a process holds the lock."""
        try:
            with open(self._lock_path) as file:
                return not _locks(file, fcntl.LOCK_SH)
        except OSError:
            return False

    @property
    def _lock_path(self) -> Path:
        return self.path / ".lock"

    def _is_lock(self, file: IO[str]) -> bool:
        """Whether the file is still the folder's lock: the folder may have been set aside."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self._lock_path))
        except FileNotFoundError:
            return False


def _locks(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def _new_record(settings: Settings) -> Record:
    """The record of a run of which nothing is known but its configuration."""
    return {
        "format": FORMAT,
        "settings": dataclasses.asdict(settings),
        "state": "running",
        "conditions": {},
        "environment": {},
    }


def _changes(recorded: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Names what differs between two dictionaries, "" if nothing does."""
    differing = [k for k in {**recorded, **ours} if recorded.get(k) != ours.get(k)]
    return ", ".join(_change(k, recorded.get(k), ours.get(k)) for k in differing)


def _change(key: str, old: object, new: object) -> str:
    name = key if key.isprintable() else repr(key)
    return f"{name}: {old!r} -> {new!r}"


def _checked(record: Any) -> Record:
    """The record, or an error that says what is wrong with it."""
    if record["format"] != FORMAT or record["state"] not in STATES:
        raise ValueError(f"format {record['format']!r}, state {record['state']!r}")
    required = {"settings": dict, "conditions": dict}
    for name, kind in {**required, "environment": dict, "earlier_environments": list}.items():
        value = record[name] if name in required else record.get(name, kind())
        if not isinstance(value, kind):
            raise TypeError(f"{name} is not a {kind.__name__}")
    ids = record.get("missing_metrics", [])
    if not isinstance(ids, list) or any(type(each) is not int for each in ids):
        raise TypeError("missing_metrics is not a list of numbers")
    for name in ("attempts", "exit_code"):
        if type(record.get(name)) not in (int, type(None)):
            raise TypeError(f"{name} is not a number")
    for name in ("started", "ended"):
        if record.get(name) is not None and datetime.fromisoformat(record[name]).tzinfo is None:
            raise ValueError(f"{name} has no time zone")
    return record

"""A job's folder: its files, what it is, and how far it has come (specification, section 7)."""

import contextlib
import dataclasses
import fcntl
import itertools
import json
from pathlib import Path

from common.configuration.settings import default_values
from common.errors import UserError
from common.files import atomic_write

FORMAT = 1


class RunFolder:
    """The files that a run leaves behind.

    `run.json` says what the folder holds: the configuration, where the data came from, and the
    state, "running" or "done". "done" means that the last iteration was trained and its results
    are on disk.

    Args:
        path: the folder; it need not exist.
        log_file: name of the run's log in it.
        restore_from: folder of the checkpoint to go on from, if it is not the run's own.
    """

    def __init__(self, path, log_file="worker.log", restore_from=None):
        self.path = Path(path)
        self.record_path = self.path / "run.json"
        self.log_path = self.path / log_file
        self.metrics_path = self.path / "metrics.csv"
        self.times_path = self.path / "time.txt"
        self.samples = self.path / "sample"
        self.checkpoints = self.path / "checkpoint"
        self.restore_from = Path(restore_from or self.checkpoints)

    def shadow(self, root):
        """A folder below `root` for a process that trains the same run and leaves no results.

        It starts from this run's checkpoint; several hosts train so, of which one writes.
        """
        return RunFolder(Path(root) / self.path.name, self.log_path.name, self.checkpoints)

    @property
    def state(self):
        """ "new", "running" (also if it was interrupted) or "done".

        Raises:
            UserError: the folder holds something else, such as the original's results.
        """
        if not self.path.exists() or (self.path.is_dir() and not any(self._contents())):
            return "new"
        return self._read_record()["state"]

    @property
    def record(self):
        """What `run.json` says.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        return self._read_record()

    def _contents(self):
        # The log alone says nothing: a run that failed at its start leaves it. Nor do hidden files:
        # they are the lock, and what atomic_write leaves when the process is killed.
        log = self.log_path.name
        return (p for p in self.path.iterdir() if p.name != log and not p.name.startswith("."))

    def _read_record(self):
        try:
            record = json.loads(self.record_path.read_text(encoding="utf-8"))
            _check_record(record)
            return record
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

    def check(self, settings):
        """Refuses a folder that was started with another configuration.

        Raises:
            UserError: names the keys that differ.
        """
        if self.state == "new":
            return
        # A key that is newer than the record had its default value then.
        recorded = {**default_values(), **self._read_record()["settings"]}
        self._refuse_changes("configuration", recorded, dataclasses.asdict(settings))

    def start(self, settings, conditions, environment):
        """Records what the run is, or checks that it is what was recorded.

        Args:
            settings: the job's `Settings`.
            conditions: JSON-able dictionary of what else the results depend on: the data and where
                they came from, the network behind the metrics, the number of replicas.
            environment: JSON-able dictionary of software versions and devices, for information.

        Raises:
            UserError: the folder was started with another configuration or other conditions.
        """
        self.check(settings)
        if self.state == "new":
            record = {"settings": dataclasses.asdict(settings), "conditions": conditions}
            state = {"state": "running", "environment": environment}
            self._write_record({"format": FORMAT, **record, **state})
        self._refuse_changes("conditions", self._read_record()["conditions"], conditions)
        for folder in (self.samples, self.checkpoints):
            folder.mkdir(exist_ok=True)

    def _refuse_changes(self, what, recorded, ours):
        differing = [k for k in {**recorded, **ours} if recorded.get(k) != ours.get(k)]
        if differing:
            changes = ", ".join(f"{k}: {recorded.get(k)!r} -> {ours.get(k)!r}" for k in differing)
            raise UserError(
                f"{self.path} was started with another {what} ({changes}). Use the same, or "
                "another result_root_folder, or move the folder away."
            )

    def set_aside(self):
        """Renames the folder, if there is one, to a name that is free; nothing is deleted.

        Raises:
            UserError: another process runs the job, or the folder cannot be renamed.
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

    def finish(self):
        """Records that the run is done."""
        self._write_record({**self._read_record(), "state": "done"})

    def _write_record(self, record):
        with atomic_write(self.record_path) as file:
            json.dump(record, file, indent=2)
            file.write("\n")

    @contextlib.contextmanager
    def lock(self):
        """Keeps every other process out of the folder while it is held; creates the folder.

        Raises:
            UserError: another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{self.path}: another process is running this job.") from None
            yield


def _check_record(record):
    if record["format"] != FORMAT or record["state"] not in ("running", "done"):
        raise ValueError(f"format {record['format']!r}, state {record['state']!r}")
    for name in ("settings", "conditions"):
        if not isinstance(record[name], dict):
            raise TypeError(f"{name} is not a dictionary")

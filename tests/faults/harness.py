"""Starts runs, harms them, and compares what is left with a run that nothing happened to."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from common.exit_status import EXIT_INTERRUPTED, EXIT_OK, EXIT_USER_ERROR
from tests.faults import child
from tests.training.runs import scalars_of

# The server imports TensorFlow once and computes nothing, so that its children start quickly.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.faults.child"])
_LONGEST = 120  # seconds that a run may take


class Run:
    """A run's folder, trained by one process after another.

    Args:
        folder: where it is.
        variant: name of the variant.
        log_path: file that takes what the processes print.
    """

    def __init__(self, folder, variant, log_path):
        self.folder = Path(folder)
        self._arguments = (str(folder), variant, str(log_path))
        self._log_path = Path(log_path)

    def start(self):
        """Starts a process; returns it and the event that its first trained iterations set."""
        training = _PROCESSES.Event()
        process = _PROCESSES.Process(target=child.run, args=(*self._arguments, training))
        process.training = training  # which is gone otherwise before the process opens it
        process.start()
        return process, training

    def finish(self):
        """Trains to the end; returns the exit status."""
        process, _ = self.start()
        return self.join(process)

    def harm(self, number, delay):
        """Sends a signal `delay` seconds after the first iterations; returns the exit status.

        With a negative delay the signal comes before them, that many seconds after the start.
        """
        process, training = self.start()
        if delay >= 0:
            deadline = time.monotonic() + _LONGEST
            while not training.wait(0.02) and process.is_alive() and time.monotonic() < deadline:
                pass
        time.sleep(abs(delay))
        if process.is_alive():
            os.kill(process.pid, number)
        return self.join(process)

    def join(self, process):
        process.join(_LONGEST)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"{self.folder}: no end after {_LONGEST} s\n{self.output}")
        return process.exitcode

    @property
    def output(self):
        """What the processes have printed."""
        return self._log_path.read_text(errors="replace")


def differences(expected, actual):
    """What differs between two finished runs: a list of descriptions, empty if nothing does.

    Compared are all checkpoints' tensors (bytes), `metrics.csv` and sample grids (bytes), and the
    sequence of (step, float32 value) of every TensorBoard tag.
    """
    found = []
    for name in ("metrics.csv", "sample/*.png"):
        found += _differing_files(expected, actual, name)
    if scalars_of(expected) != scalars_of(actual):
        found.append("TensorBoard scalars")
    names = [_checkpoints(folder) for folder in (expected, actual)]
    if names[0] != names[1]:
        found.append(f"checkpoints {names[0]} and {names[1]}")
    for name in set(names[0]) & set(names[1]):
        found += [f"{name}: {x}" for x in _differing_tensors(expected / name, actual / name)]
    return found


def _differing_files(expected, actual, pattern):
    files = [
        {p.name: p.read_bytes() for p in folder.glob(pattern)} for folder in (expected, actual)
    ]
    return [name for name in {**files[0], **files[1]} if files[0].get(name) != files[1].get(name)]


def _checkpoints(folder):
    paths = folder.glob("checkpoint/**/model-*.index")
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in paths)


def _differing_tensors(expected, actual):
    readers = [tf.train.load_checkpoint(str(path)) for path in (expected, actual)]
    names = [set(reader.get_variable_to_shape_map()) for reader in readers]
    yield from names[0] ^ names[1]
    for name in names[0] & names[1]:
        if name.startswith(("progress/", "_CHECKPOINTABLE")):
            continue  # the sizes of event files, whose names differ; the graph of objects
        a, b = (np.asarray(reader.get_tensor(name)) for reader in readers)
        if a.tobytes() != b.tobytes():
            yield name


def kill_at_random(run, rng, kills, longest_delay, number=signal.SIGKILL):
    """Starts a run again and again and sends a signal at random moments, until it is done.

    Args:
        run: a `Run`.
        rng: NumPy's random generator.
        kills: the most signals to send; then the run is let finish.
        longest_delay: seconds after the first iterations.
        number: the signal.

    Returns:
        `(signals that ended a process, list of exit statuses that are neither the signal's nor 0)`.
    """
    expected = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: EXIT_INTERRUPTED}[number]
    ended, strange = 0, []
    while ended < kills:
        early = rng.random() < 0.15
        status = run.harm(number, -rng.uniform(0, 1) if early else rng.uniform(0, longest_delay))
        if status == EXIT_OK:
            return ended, strange
        if early and number == signal.SIGTERM and status == -number:
            continue  # before the handler was there
        ended += 1
        if status != expected:
            strange.append(status)
    status = run.finish()
    return ended, strange + ([status] if status != EXIT_OK else [])


def damage_newest_checkpoint(folder, rng):
    """Cuts a file of the newest checkpoint short, or flips one of its bits; returns what it did."""
    paths = folder.glob("checkpoint/**/model-*.index")
    # Of one iteration the permanent copy is read only if the other cannot be.
    index = max(paths, key=lambda p: (int(p.stem.split("-")[1]), p.parent.name == "checkpoint"))
    path = rng.choice([index, index.with_suffix(".data-00000-of-00001")])
    content = bytearray(path.read_bytes())
    position = int(rng.integers(len(content)))
    if rng.random() < 0.5:
        path.write_bytes(content[:position])
        return f"{path.name} cut to {position} of {len(content)} bytes"
    content[position] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
    return f"{path.name} with a bit of byte {position} flipped"


class FullDisk:
    """A small file system of its own, which can be filled; needs the right to mount.

    Args:
        folder: where it is mounted.
        size: bytes.
    """

    def __init__(self, folder, size=64 * 2**20):
        self.folder = Path(folder)
        self._size = size

    def __enter__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        if os.system(f"mount -t tmpfs -o size={self._size} tmpfs '{self.folder}' 2>/dev/null"):
            raise PermissionError("cannot mount a small file system: root is needed")
        return self

    def __exit__(self, *exception):
        os.system(f"umount -l '{self.folder}'")

    def leave_free(self, count):
        """Fills it until about `count` bytes are free."""
        (self.folder / "filler").write_bytes(b"")
        status = os.statvfs(self.folder)
        with open(self.folder / "filler", "wb") as file:
            file.write(bytes(max(status.f_bavail * status.f_bsize - count, 0)))

    def make_room(self):
        """Removes what filled it."""
        (self.folder / "filler").unlink(missing_ok=True)


CLEAR_ENDS = (EXIT_OK, EXIT_USER_ERROR)

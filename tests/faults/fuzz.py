"""Feeds spoilt input to everything that reads files, options or environment variables.

    python -m tests.faults.fuzz --inputs 5000
    python -m tests.faults.fuzz --inputs 1 --first 4711 --parsers checkpoints     # one again

Inputs are mutations of small valid ones (`mutations`), determined by the seed and their number.
Each must be read, or refused by a `UserError` of one readable line, within 10 seconds, without more
than 1 GiB of memory above what the process had before, without opening a file for writing, making,
renaming or deleting anything outside its folder, without starting a process, unpickling a class or
looking for a network. Every parser is fed in a process of its own, whose crash is a failure too.

Prints one JSON line per parser: how many inputs, successes, clear errors and failures, the numbers
and reasons of the first failures, the longest time and the highest memory. Exits 1 if any failed.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from common.errors import UserError
from tests.faults.mutations import Spoiler

SECONDS = 10  # for one input
MEMORY = 2**30  # bytes that one input may add to the resident memory
_ADDRESSES = 2**33  # bytes that all inputs of a process may add to its address space
_LONGEST_MESSAGE = 3000  # characters
_SHOWN = 5  # failures

# A server that has imported TensorFlow and computed nothing, so that its children start quickly.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.faults.parsers"])


def main():
    """Runs the command line; see the module."""
    from tests.faults.parsers import PARSERS  # noqa: PLC0415 (heavy, and the server's business)

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1000, help="per parser")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--parsers", nargs="*", choices=list(PARSERS), default=list(PARSERS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    failures = 0
    for name in arguments.parsers:
        result = fuzz(name, arguments.inputs, arguments.seed, arguments.first)
        failures += result["failures"]
        print(json.dumps(result), flush=True)
    sys.exit(bool(failures))


def fuzz(name, inputs, seed=0, first=0):
    """Feeds a parser; returns what came of it, as the module describes."""
    result = {"parser": name, "inputs": 0, "successes": 0, "clear_errors": 0, "failures": 0}
    result |= {"seed": seed, "first_failures": [], "slowest_seconds": 0.0, "peak_megabytes": 0}
    number = first
    while number < first + inputs:
        for outcome in _outcomes(name, range(number, first + inputs), seed):
            _count(result, outcome)
            number += 1
    return result


def _count(result, outcome):
    result["inputs"] += 1
    result[outcome["kind"]] += 1
    if outcome["kind"] == "failures" and len(result["first_failures"]) < _SHOWN:
        result["first_failures"].append({key: outcome[key] for key in ("number", "reason")})
    result["slowest_seconds"] = max(result["slowest_seconds"], round(outcome["seconds"], 2))
    result["peak_megabytes"] = max(result["peak_megabytes"], outcome["memory"] // 2**20)


def _outcomes(name, numbers, seed):
    """Feeds the inputs in a new process, up to the last one or to the one that it does not survive.

    Yields:
        `_Watch.outcome` of each, with its `number`.
    """
    ours, theirs = _PROCESSES.Pipe()
    with tempfile.TemporaryDirectory() as root:
        process = _PROCESSES.Process(target=_feed_all, args=(theirs, root, name, numbers, seed))
        process.start()
        theirs.close()
        try:
            number, began = None, time.monotonic()
            if ours.poll(10 * SECONDS):  # until the making of what the inputs are made of is done
                ours.recv()
            for number in numbers:
                began = time.monotonic()
                if not ours.poll(3 * SECONDS):
                    raise EOFError("it hangs, deaf to signals")
                yield {"number": number, **ours.recv()}
        except (EOFError, ConnectionError) as error:
            process.join(1)
            reason = str(error) or f"the process ended with {process.exitcode}"
            if number is None:
                raise RuntimeError(f"{name}: valid input cannot be read: {reason}") from error
            failure = {"kind": "failures", "seconds": time.monotonic() - began, "memory": 0}
            yield {"number": number, **failure, "reason": reason}
        finally:
            process.kill()
            process.join()


class _Hang(BaseException):
    """An input took too long; no parser catches this."""


def _feed_all(pipe, root, name, numbers, seed):
    """Feeds inputs, one after another, and sends what comes of each; a process's main function."""
    from tests.faults.parsers import PARSERS  # noqa: PLC0415

    watch = _Watch(Path(root))
    feeds = PARSERS[name]
    with _silence():
        stages = [_count_stages(feed, watch) for feed in feeds]
        _limit_addresses()
        pipe.send("ready")
        for number in numbers:
            which = number % len(feeds)
            spoiler = Spoiler(seed, number, stages[which])
            pipe.send(watch.outcome(feeds[which], spoiler))
    pipe.close()


def _count_stages(feed, watch):
    """The number of pieces an input is built of; it must be right as long as none is spoilt."""
    spoiler = Spoiler()
    outcome = watch.outcome(feed, spoiler)
    expected = "clear_errors" if feed.__name__.startswith("hostile") else "successes"
    if outcome["kind"] != expected:
        raise AssertionError(f"{feed.__name__} without faults: {outcome}")
    return spoiler.count


class _Watch:
    """Feeds inputs in a folder and sees what else they do.

    Args:
        root: an empty folder.
    """

    _FORBIDDEN = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn",
                  "os.fork", "socket.connect", "socket.getaddrinfo")  # fmt: skip
    _CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink",
                "os.chmod", "os.truncate")  # fmt: skip

    def __init__(self, root):
        self._box = root / "box"
        self._offences = None  # a list while an input is being read
        for name in ("temporary", "working"):
            (root / name).mkdir()
        tempfile.tempdir = str(root / "temporary")
        os.chdir(root / "working")
        self._root = root
        self._listing = sorted(root.rglob("*"))
        sys.addaudithook(self._audit)
        signal.signal(signal.SIGALRM, self._interrupt)

    def outcome(self, feed, spoiler):
        """Feeds one input; returns `kind`, `seconds`, `memory` in bytes, a failure's `reason`."""
        self._box.mkdir()
        before = _reset_peak()
        self._offences, began = [], time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        kind, reason = "successes", ""
        try:
            feed(self._box, spoiler)
        except UserError as error:
            kind, reason = "clear_errors", _fault_of(str(error))
        except (Exception, SystemExit, _Hang):
            reason = " | ".join(traceback.format_exc(limit=-3).splitlines())[-600:]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        seconds, memory = time.monotonic() - began, _memory("VmHWM") - before
        offences, self._offences = self._offences, None
        reason = reason or "; ".join(offences[:3])
        if memory > MEMORY:
            reason = reason or f"{memory // 2**20} MiB of memory"
        shutil.rmtree(self._box, ignore_errors=True)
        if sorted(self._root.rglob("*")) != self._listing:
            raise AssertionError(f"something was left in {self._root}: {reason}")
        kind = "failures" if reason else kind
        return {"kind": kind, "seconds": seconds, "memory": max(0, memory), "reason": reason}

    def _interrupt(self, number, frame):
        raise _Hang

    def _audit(self, event, arguments):
        if self._offences is None:
            return
        if event in self._FORBIDDEN:
            self._offences.append(f"{event}{arguments!r}"[:200])
        elif event in self._CHANGES or (event == "open" and arguments[2] & _WRITING):
            folder = "" if event in ("open", "os.truncate") else _folder_of(arguments[-1])
            for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
                if isinstance(path, str | bytes | os.PathLike):
                    self._check_change(event, os.path.join(folder, os.fsdecode(path)))

    def _check_change(self, event, path):
        # A temporary file is nobody else's business as long as it is removed.
        real = Path(os.path.realpath(path))
        inside = (self._box, self._root / "temporary", Path(os.devnull))
        if not any(real.is_relative_to(place) for place in inside):
            self._offences.append(f"{event} {path!r}")


_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def _folder_of(descriptor):
    """The folder that a relative path starts from, -1 being the working folder."""
    is_open = isinstance(descriptor, int) and descriptor >= 0
    return os.readlink(f"/proc/self/fd/{descriptor}") if is_open else ""


def _fault_of(message):
    """What is wrong with a message that should be one readable line, or nothing."""
    if not message.strip():
        return "an empty message"
    if not message.isprintable():
        return f"not one printable line: {message[:300]!r}"
    if len(message) > _LONGEST_MESSAGE:
        return f"a message of {len(message):,} characters: {message[:300]!r}"
    return ""


def _memory(field):
    """Bytes of memory of this process: `VmRSS` now, `VmHWM` the highest, `VmSize` addresses."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _reset_peak():
    """Makes `VmHWM` start anew; returns the resident memory, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _limit_addresses():
    """Lets an input that asks for too much fail before the machine does."""
    import resource  # noqa: PLC0415

    limit = _memory("VmSize") + _ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextlib.contextmanager
def _silence():
    """Sends what parsers print to nowhere: progress bars, warnings, TensorFlow's notes."""
    with open(os.devnull, "w") as nowhere:
        saved = [os.dup(1), os.dup(2)]
        for descriptor in (1, 2):
            os.dup2(nowhere.fileno(), descriptor)
        try:
            yield
        finally:
            for descriptor, old in zip((1, 2), saved, strict=True):
                os.dup2(old, descriptor)


if __name__ == "__main__":
    main()

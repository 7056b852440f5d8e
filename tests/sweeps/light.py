"""A sweep of light jobs in a folder, run as `main.py` runs it: in processes of its own."""

import json
import os
import subprocess
import sys
import time

from common.configuration.sweep import expand
from common.results.run_folder import RunFolder
from tests.configuration.variants import NO_GAMMA, config_of

ITERATIONS = 20


class LightSweep:
    """Runs 0 to `runs` - 1 below `base`, by `tests.sweeps.light_main`."""

    def __init__(self, base, runs):
        self.base = base
        self.runs = runs
        config = config_of({"run": range(runs), "iteration": [ITERATIONS]})
        self.jobs = expand(NO_GAMMA, config).jobs
        self.folders = [RunFolder(base / "results" / job.folder) for job in self.jobs]

    def start(self, *options, wrong=None, seconds=0.002, check=0, **environment):
        """Starts the scheduler; `wrong` is what goes wrong in which run, see `light_worker`."""
        command = [sys.executable, "-m", "tests.sweeps.light_main", str(self.base), str(self.runs)]
        light = {"LIGHT_WORKER": json.dumps(wrong or {}), "LIGHT_SECONDS": str(seconds)}
        inherited = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        return subprocess.Popen(
            [*command, "--set=gpu=0,1", *options],
            env={**inherited, **light, "LIGHT_CHECK": str(check), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *options, **environment):
        """Runs the scheduler to its end: (exit status, standard output, standard error)."""
        process = self.start(*options, **environment)
        out, errors = process.communicate(timeout=100)
        return process.returncode, out, errors

    def wait_until_running(self, count, process=None):
        """Waits until so many jobs are in the middle of their iterations."""
        wait_for(lambda: sum(0 < n < ITERATIONS for n in self.counts) >= count, process)

    @property
    def counts(self):
        """How many iterations were made of each job."""
        return [len(self.iterations(run)) for run in range(self.runs)]

    def iterations(self, run):
        """The iterations that were made of a job, in order, by all its attempts."""
        path = self.folders[run].path / "iterations.txt"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    @property
    def states(self):
        return [folder.state for folder in self.folders]

    @property
    def records(self):
        return [folder.record for folder in self.folders]

    def refuse_losses(self):
        """Every job is done, each of its iterations having been made exactly once."""
        assert self.states == ["done"] * self.runs
        for run in range(self.runs):
            assert self.iterations(run) == list(range(ITERATIONS))

    def refuse_survivors(self):
        """No process of a job runs, and none holds a folder."""
        for folder in self.folders:
            assert not folder.is_in_use
            record = folder.record
            assert not (record and alive(record["pid"]))

    @property
    def log(self):
        """The lines of scheduler.log, without their times, jobs being named `<run>`."""
        text = (self.base / "scheduler.log").read_text()
        for run, job in enumerate(self.jobs):
            text = text.replace(job.folder, f"<{run}>")
        return [line.split(" ", 2)[2] for line in text.splitlines()]


def alive(pid):
    """Whether the process exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, process=None, seconds=60):
    """Waits until a condition holds; `process` must not end before."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.01)

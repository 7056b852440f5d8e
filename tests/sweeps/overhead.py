"""`python -m tests.sweeps.overhead [JOBS]`: what the scheduler itself costs for each job.

Two slots run jobs that end at once. Prints a line of JSON, all in milliseconds a job: `own`, the
time in which the scheduler does not wait for jobs, disk included; `cpu`, its processor time; `gap`,
how long a slot has no job, from the end of one's code to the start of the next's, in which Python
ends and starts, too.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

from common.command_line import main
from common.sweeps.local import Signals
from tests.configuration.variants import NO_GAMMA, config_of

SLOTS = 2
WORKER = """
import time; began = time.perf_counter()
import json, os, sys
message = json.load(sys.stdin)
if message["action"] == "train":
    path = os.path.join(message["folder"], "run.json")
    with open(path) as file:
        record = json.load(file)
    with open(path + ".new", "w") as file:
        json.dump({**record, "state": "done"}, file)
    os.replace(path + ".new", path)
    print(time.perf_counter() - began)
"""


def measure(jobs):
    """Runs so many jobs; returns the figures as a dictionary."""
    waits = []

    def timed_wait(self, seconds, wait=Signals.wait):
        started = time.perf_counter()
        wait(self, seconds)
        waits.append(time.perf_counter() - started)

    with tempfile.TemporaryDirectory() as base, mock.patch.object(Signals, "wait", timed_wait):
        config = config_of({"run": range(jobs)}, scheduler={"gpu": ["0", "1"]})
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        command = (sys.executable, "-I", "-S", "-c", WORKER)
        assert main(NO_GAMMA, config, base, ["main.py"], command) == 0
        seconds = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_SELF)
        logs = list(Path(base).glob("results/*/worker.log"))
        assert len(logs) == jobs
        inside = sum(float(log.read_text()) for log in logs)
    figures = {
        "own": seconds - sum(waits),
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "gap": SLOTS * seconds - inside,
    }
    return {"jobs": jobs, **{name: round(1000 * f / jobs, 2) for name, f in figures.items()}}


if __name__ == "__main__":
    figures = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 450)
    print(json.dumps(figures))

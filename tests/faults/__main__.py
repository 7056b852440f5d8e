"""Harms small runs and counts the differences from runs left in peace.

    python -m tests.faults --kills 20

The runs are one of every variant, and one of the plain step with labels (`tests.training.small`).
Prints one JSON line per kind of fault and variant: how many faults, how many differences, and the
ends that were not clear (an exit status other than that of a signal, an error for the user, or a
request to stop). Exits 1 if there was any.
"""

import argparse
import json
import signal
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np

from tests.faults import harness
from tests.training.small import RUNS


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of each kind and variant")
    parser.add_argument("--variants", nargs="*", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--faults", nargs="*", choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    troubles = 0
    for variant in arguments.variants:
        with tempfile.TemporaryDirectory() as root:
            whole = harness.Run(Path(root) / "whole", variant, Path(root) / "whole.log")
            if whole.finish():
                sys.exit(f"the run without faults failed:\n{whole.output}")
            for name in arguments.faults:
                purpose = zlib.crc32(f"{variant} {name}".encode())
                rng = np.random.default_rng([arguments.seed, purpose])
                try:
                    result = FAULTS[name](Path(root), variant, rng, arguments.kills)
                except PermissionError as error:
                    print(json.dumps({"fault": name, "not_tried": str(error)}), flush=True)
                    continue
                troubles += len(result["differences"]) + len(result["unclear_ends"])
                print(json.dumps({"fault": name, "variant": variant, **result}), flush=True)
    sys.exit(bool(troubles))


def _runs_until(root, variant, name, faults, harm, *, logs=None):
    """Harms runs until there were so many faults; `harm(run, faults left)` does one run.

    What the processes print goes to the folder `logs`, by default where the runs are.
    """
    done, runs, found, unclear = 0, 0, [], []
    while done < faults:
        log = (logs or root) / f"{name}{runs}.log"
        run = harness.Run(root / f"{name}{runs}", variant, log)
        count, strange = harm(run, faults - done)
        done, runs = done + count, runs + 1
        unclear += strange
        found += harness.differences(root / "whole", run.folder)
        if runs > 4 * faults:
            raise RuntimeError(f"{runs} runs, and only {done} of {faults} faults happened")
    return {"faults": done, "runs": runs, "differences": found, "unclear_ends": unclear}


def _signals(number):
    def inject(root, variant, rng, faults):
        def harm(run, left):
            return harness.kill_at_random(run, rng, left, longest_delay=1.0, number=number)

        return _runs_until(root, variant, signal.Signals(number).name, faults, harm)

    return inject


def _damages(root, variant, rng, faults):
    def harm(run, left):
        del left
        longest = 1.0
        while len(list(run.folder.glob("checkpoint/model-*.index"))) < 2:
            status = run.harm(signal.SIGKILL, rng.uniform(0.2, longest))
            if status != -signal.SIGKILL:  # it had ended before
                return 0, [status] if status else []
            longest *= 2  # the ResNet takes longer to get so far
        what = harness.damage_newest_checkpoint(run.folder, rng)
        if rng.random() < 0.5:  # the checkpoint of a stop, though older than the damaged one
            run.harm(signal.SIGTERM, rng.uniform(0, 0.3))
        status = run.finish()
        unclear = [f"{status} after {what}"] if status else []
        if "cannot be restored" not in run.output:
            unclear.append(f"no word of {what}")
        return 1, unclear

    return _runs_until(root, variant, "damage", faults, harm)


def _full_disk(root, variant, rng, faults):
    def harm(run, left):
        count, unclear = 0, []
        for _ in range(left):
            disk.leave_free(int(rng.integers(0, 600_000)))
            status = run.finish()
            if status not in harness.CLEAR_ENDS:
                unclear.append(status)
            disk.make_room()
            if status == 0:
                return count, unclear
            count += 1
        status = run.finish()
        return count, unclear + ([status] if status else [])

    with harness.FullDisk(root / "disk") as disk:
        for path in ("whole", "cache"):
            (root / "disk" / path).symlink_to(root / path)
        return _runs_until(root / "disk", variant, "full", faults, harm, logs=root)


def _two_processes(root, variant, rng, faults):
    del rng

    def harm(run, left):
        del left
        processes = [run.start()[0] for _ in range(2)]
        statuses = sorted(run.join(process) for process in processes)
        refused = "another process is running this job" in run.output
        return 1, [] if statuses == [0, 2] and refused else [statuses]

    return _runs_until(root, variant, "two", max(faults // 10, 1), harm)


FAULTS = {
    "SIGKILL": _signals(signal.SIGKILL),
    "SIGTERM": _signals(signal.SIGTERM),
    "damaged checkpoint": _damages,
    "full disk": _full_disk,
    "two processes": _two_processes,
}


if __name__ == "__main__":
    main()

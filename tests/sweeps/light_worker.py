"""A job's process that trains nothing and needs no TensorFlow, but is one in all else.

It counts iterations, noting each in `iterations.txt`; its checkpoint is the count. What goes wrong
stands in the environment variable LIGHT_WORKER, JSON: `{run: [what happens in the first attempt, in
the second, ...]}`, at the middle of the iterations or after: "exit <code>", "exception", "kill" or
"lie" (it ends well before its end).
"""

import json
import os
import signal
import sys
import time

from common.configuration.settings import Settings
from common.exit_status import EXIT_INTERRUPTED, EXIT_OK, EXIT_USER_ERROR
from common.files import atomic_write
from common.results.progress import ProgressFile
from common.results.run_folder import RunFolder
from common.sweeps.child import die_with

SECONDS = float(os.environ.get("LIGHT_SECONDS", "0.002"))  # an iteration's


def main():
    message = json.load(sys.stdin)
    die_with(message["parent"])
    if message["action"] == "check":
        return check()
    stops = []
    signal.signal(signal.SIGTERM, lambda *_: stops.append(1))
    settings = Settings(**message["settings"])
    folder = RunFolder(message["folder"], message["log_file"])
    folder.start(settings, {"replicas": message["devices"]}, {})
    wrong = json.loads(os.environ.get("LIGHT_WORKER", "{}")).get(str(settings.run), [])
    attempt = folder.record.get("attempts", 1) - 1
    try:
        count(settings, folder, wrong[attempt] if attempt < len(wrong) else "", stops)
        folder.finish()
        print("finished")
    except OSError as error:
        os.write(2, f"error: {error}\n".encode())
        return EXIT_USER_ERROR
    return EXIT_OK


def check():
    if seconds := os.environ.get("LIGHT_CHECK_SECONDS"):
        print("checking", file=sys.stderr)
        time.sleep(float(seconds))
    code = int(os.environ.get("LIGHT_CHECK", "0"))
    if code:
        print("error: the check says so", file=sys.stderr)
    return code


def count(settings, folder, wrong, stops):
    checkpoint = folder.checkpoints / "model"
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    print(f"from {done} on {os.environ['CUDA_VISIBLE_DEVICES']!r}")
    progress = ProgressFile(folder.progress_path, settings.iteration, done)
    path = folder.path / "iterations.txt"
    if path.exists():  # notes after the checkpoint are taken back, as training takes back its rows
        noted = [line for line in path.read_text().splitlines() if line and int(line) < done]
        path.write_text("".join(f"{line}\n" for line in noted))
    with open(path, "a", encoding="utf-8") as notes:
        for iteration in range(done, settings.iteration):
            time.sleep(SECONDS)
            print(iteration, file=notes, flush=True)
            progress.update(iteration + 1)
            with atomic_write(checkpoint) as file:  # a full disk must not leave it empty
                file.write(str(iteration + 1))
            if iteration == max(done, settings.iteration // 2):
                go_wrong(wrong)
            if stops:
                sys.exit(EXIT_INTERRUPTED)


def go_wrong(how):
    if how.startswith("exit"):
        print("error: something is wrong", file=sys.stderr)
        sys.exit(int(how.split()[1]))
    if how == "exception":
        raise ValueError("oops")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "lie":
        sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())

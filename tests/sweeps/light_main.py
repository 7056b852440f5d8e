"""`python -m tests.sweeps.light_main FOLDER RUNS [options]`: a `main.py` whose jobs are light.

FOLDER is the variant's; the jobs are the runs 0 to RUNS - 1. It prints its own name as `main.py`
would not, nothing else.
"""

import sys

from common.command_line import main
from tests.configuration.variants import NO_GAMMA, config_of

WORKER = (sys.executable, "-m", "tests.sweeps.light_worker")

if __name__ == "__main__":
    folder, runs, *options = sys.argv[1:]
    config = config_of({"run": range(int(runs)), "iteration": [20]})
    sys.exit(main(NO_GAMMA, config, folder, ["main.py", *options], WORKER))

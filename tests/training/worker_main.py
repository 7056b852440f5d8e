"""Runs a small job as `main.py` does: `python -m tests.training.worker_main FOLDER [options]`.

With `TF_CONFIG` in the environment it is one of several workers; without, it uses two devices.
"""

import os
import sys

from common.command_line import main
from tests.training.small import VARIANTS, values_of

CONFIG = {
    "scheduler_config": {"gpu": ["0"] if "TF_CONFIG" in os.environ else [["0", "1"]]},
    "global_config": {
        k: v for k, v in values_of(VARIANTS["no_gamma_cnn"], mg=4).items() if k != "run"
    },
    "test_config": [{"run": [0]}],
}

if __name__ == "__main__":
    folder, *options = sys.argv[1:]
    sys.exit(
        main(VARIANTS["no_gamma_cnn"], CONFIG, folder, ["main.py", "--metrics=none", *options])
    )

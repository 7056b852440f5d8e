"""The scripts of `dataset_preprocess`, run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(tmp_path):
    """Returns a function that starts the script of a data set on archives in `tmp_path`."""

    def start(name: str, archive: Path, *options: str, **environment: str) -> subprocess.Popen:
        script = ROOT / "dataset_preprocess" / name / "preprocess.py"
        return subprocess.Popen(
            [sys.executable, str(script), f"--input={archive}", *options],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start

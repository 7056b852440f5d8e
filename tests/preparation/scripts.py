"""Runs the scripts of `dataset_preprocess` within the test's process, or loads them."""

import functools
import importlib
import sys
from pathlib import Path

from common.preparation.program import main

FOLDER = Path(__file__).parents[2] / "dataset_preprocess"


@functools.cache
def load(name: str):
    """The module `dataset_preprocess/<name>/preprocess.py`, by a name that workers can import."""
    if str(FOLDER.parent) not in sys.path:
        sys.path.insert(0, str(FOLDER.parent))
    return importlib.import_module(f"dataset_preprocess.{name}.preprocess")


def run(name: str, archive: Path, *options: str) -> int:
    """Runs a script on an archive; the output is made beside the latter. Returns the status."""
    arguments = ["preprocess.py", f"--input={archive}", "--workers=1", *options]
    return main(load(name).PREPARATION, archive.parent, arguments)

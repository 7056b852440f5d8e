"""`python -m tests.sweeps.outcomes`: what may befall a sweep, and how each case ended."""

import sys
from pathlib import Path

import pytest


class Table:
    """Prints a line for each case."""

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.skipped:
            case = report.nodeid.partition("::")[2].removeprefix("test_").replace("_", " ")
            print(f"{report.outcome:8}{report.duration:6.1f} s  {case}")


if __name__ == "__main__":
    files = [str(Path(__file__).with_name(f"test_{name}.py")) for name in ("outcomes", "cluster")]
    options = ["-p", "no:terminal", "-o", "addopts="]
    sys.exit(pytest.main([*options, *files, *sys.argv[1:]], plugins=[Table()]))

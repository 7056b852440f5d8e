"""Cases of the golden files that hold single functions' inputs and outputs."""

import functools
import json
from pathlib import Path

import numpy as np

_FILE = Path(__file__).parent / "golden" / "gan_comparison-losses.json"


@functools.cache
def _cases():
    return {case["name"]: case for case in json.loads(_FILE.read_text())["cases"]}


def golden_case(name):
    """`(inputs, outputs)` of a case, lists as float64 arrays."""
    case = _cases()[name]
    return _arrays(case["in"]), _arrays(case["out"])


def _arrays(value):
    if isinstance(value, dict):
        return {key: _arrays(part) for key, part in value.items()}
    return np.array(value) if isinstance(value, list) else value

"""What the benchmarks share: alternating timings, memory, and lines of JSON."""

import json
import resource
import statistics
import time


def alternate(functions, rounds, warm_up=1):
    """Times functions in turn, so that a machine whose speed drifts treats them alike.

    Args:
        functions: `{name: function without arguments}`; each must wait for its own result.
        rounds: number of timed calls of each.
        warm_up: number of calls of each before them.

    Returns:
        `{name: [seconds of each call]}`.
    """
    for function in functions.values():
        for _ in range(warm_up):
            function()
    seconds = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def spread(values):
    """`{"min", "median", "max"}` of numbers."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def peak_rss_bytes():
    """The most memory that the process has had resident, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def print_line(**values):
    """Prints a JSON object, floats being rounded to four significant digits."""
    print(json.dumps(_rounded(values)), flush=True)


def _rounded(value):
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value

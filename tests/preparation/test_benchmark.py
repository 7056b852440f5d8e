"""The benchmark itself, on archives too small to say anything about speed."""

import pytest

from tests.benchmarks.preprocess import BENCHMARKS, measure


@pytest.mark.parametrize(
    "name",
    [n if n == "STL10" else pytest.param(n, marks=pytest.mark.slow) for n in BENCHMARKS],
)
def test_benchmark(tmp_path, name):
    """It compares the outputs, too: they would have to be the same."""
    result = measure(name, tmp_path, scale=0.01, rounds=1)
    assert result["images"] == BENCHMARKS[name][1] // 100
    assert result["ratio"] > 0
    assert 10 < result["peak_memory_mb"] < 500

"""The Kernel Inception Distance against its definition, pair by pair."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.metrics.kernel_distance import kernel_inception_distance
from common.metrics.selection import generator_for


def squared_discrepancy(x, y):
    """The unbiased estimate by its double sums, in extended precision."""
    x, y = x.astype(np.longdouble), y.astype(np.longdouble)

    def kernel(a, b):
        return (np.dot(a, b) / len(a) + 1) ** 3

    m, n = len(x), len(y)
    within_x = sum(kernel(x[i], x[j]) for i in range(m) for j in range(m) if i != j)
    within_y = sum(kernel(y[i], y[j]) for i in range(n) for j in range(n) if i != j)
    between = sum(kernel(a, b) for a in x for b in y)
    return float(within_x / (m * (m - 1)) + within_y / (n * (n - 1)) - 2 * between / (m * n))


def features(count, size, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    return (shift + rng.normal(size=(count, size))).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(2, 12),
    size=st.integers(1, 9),
    shift=st.floats(-3, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_subsets_of_everything_equal_the_definition(count, size, shift, seed):
    real, fake = features(count, size, seed), features(count, size, seed + 1, shift)
    result = kernel_inception_distance(real, fake, seed=0, subsets=3)
    expected = squared_discrepancy(real, fake)
    assert result["kid_mean"] == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert result["kid_std"] == pytest.approx(0, abs=1e-9)


def test_mean_and_deviation_over_subsets():
    real, fake = features(40, 6, 1), features(30, 6, 2, 0.4)
    values = []
    for number in range(7):
        generator = generator_for("subsets of the KID/5", number)
        rows = [generator.choice(len(x), 11, replace=False) for x in (real, fake)]
        assert all(len(set(chosen)) == 11 for chosen in rows)
        values.append(squared_discrepancy(real[rows[0]], fake[rows[1]]))
    result = kernel_inception_distance(real, fake, seed=5, subsets=7, subset_size=11)
    assert result["kid_mean"] == pytest.approx(np.mean(values), rel=1e-9)
    assert result["kid_std"] == pytest.approx(np.std(values), rel=1e-9)
    assert len(set(np.round(values, 9))) == 7


def test_subsets_of_any_size_estimate_the_same():
    """The estimate is unbiased: equal distributions give 0, however few images there are."""
    real, fake = features(4000, 5, 3), features(4000, 5, 4)
    result = kernel_inception_distance(real, fake, seed=0, subsets=400, subset_size=10)
    error = result["kid_std"] / 400**0.5
    assert abs(result["kid_mean"]) < 4 * error
    shifted = kernel_inception_distance(real, fake + 0.5, seed=0, subsets=400, subset_size=10)
    whole = kernel_inception_distance(real, fake + 0.5, seed=0, subsets=1, subset_size=4000)
    assert shifted["kid_mean"] == pytest.approx(whole["kid_mean"], abs=4 * shifted["kid_std"] / 20)
    assert whole["kid_mean"] > 1


def test_the_seed_alone_decides():
    real, fake = features(50, 3, 5), features(50, 3, 6)
    np.random.seed(1)  # noqa: NPY002 (the global one must not matter)
    one, again, other = (
        kernel_inception_distance(real, fake, seed=seed, subsets=4, subset_size=9)
        for seed in (1, 1, 2)
    )
    assert one == again
    assert one["kid_mean"] != other["kid_mean"]


@pytest.mark.parametrize(("real", "fake"), [(1, 9), (9, 1), (0, 0)])
def test_too_few_images(real, fake):
    with pytest.raises(UserError, match="at least 2"):
        kernel_inception_distance(features(real, 3, 0), features(fake, 3, 1), seed=0)

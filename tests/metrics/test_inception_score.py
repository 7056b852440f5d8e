"""The Inception Score against its definition on whole arrays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, xlogy

from common.errors import UserError
from common.metrics.errors import NonFiniteFeaturesError
from common.metrics.inception_score import InceptionScore


def score_by_definition(logits, splits=10):
    """exp(mean KL(p || mean p)) of each contiguous split, all probabilities at once."""
    scores = []
    for i in range(splits):
        part = logits[i * len(logits) // splits : (i + 1) * len(logits) // splits]
        log_p = log_softmax(part.astype(np.float64), axis=1)
        p = np.exp(log_p)
        marginal = p.mean(axis=0)
        divergence = (p * log_p).sum(axis=1) - xlogy(p, marginal).sum(axis=1)
        scores.append(np.exp(divergence.mean()))
    return np.mean(scores), np.std(scores)


def score_by_accumulation(logits, splits=10, batch_sizes=(7,)):
    metric = InceptionScore(len(logits), logits.shape[1], splits)
    start = turn = 0
    while start < len(logits):
        batch = logits[start : start + batch_sizes[turn % len(batch_sizes)]]
        metric.update(np.zeros((len(batch), 0)), batch)
        start, turn = start + len(batch), turn + 1
    result = metric.result()
    assert list(result) == ["inception_score_mean", "inception_score_std"]
    assert all(type(value) is float for value in result.values())
    return tuple(result.values())


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(3, 90),
    classes=st.integers(1, 12),
    splits=st.integers(1, 3),
    batch_sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    spread=st.floats(0, 30),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_batches_equal_the_definition(*, count, classes, splits, batch_sizes, spread, seed):
    logits = np.random.default_rng(seed).normal(0, spread, (count, classes)).astype(np.float32)
    actual = score_by_accumulation(logits, splits, batch_sizes)
    np.testing.assert_allclose(actual, score_by_definition(logits, splits), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("count", [10, 11, 19, 137])
def test_bounds_when_the_splits_differ_in_size(count):
    logits = np.random.default_rng(count).normal(0, 3, (count, 5))
    actual = score_by_accumulation(logits, 10, [4])
    np.testing.assert_allclose(actual, score_by_definition(logits), rtol=1e-9)
    # The bounds matter: another contiguous partition of these images gives another score.
    parts = np.array_split(logits, 10)
    other = [score_by_definition(part, 1)[0] for part in parts]
    if count % 10:
        assert abs(np.mean(other) - actual[0]) > 1e-4


def test_known_scores():
    certain = np.repeat(np.eye(10) * 1000.0, 10, axis=0)[np.arange(100) % 10 * 10]
    assert score_by_accumulation(certain) == pytest.approx((10, 0), abs=1e-9)
    assert score_by_accumulation(np.zeros((50, 10))) == pytest.approx((1, 0), abs=1e-12)
    one_class_per_split = np.repeat(np.eye(10) * 1000.0, 10, axis=0)
    assert score_by_accumulation(one_class_per_split) == pytest.approx((1, 0), abs=1e-12)


@pytest.mark.parametrize("extreme", [89.0, -110.0, 1000.0, -1e30, 3e38])
def test_extreme_logits_stay_finite(extreme):
    """The original's float32 softmax without maximum gives NaN for the first two."""
    logits = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    logits[3, 2] = logits[17, 0] = extreme
    actual = score_by_accumulation(logits)
    assert np.isfinite(actual).all()
    np.testing.assert_allclose(actual, score_by_definition(logits), rtol=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_logits_are_an_error(value):
    metric = InceptionScore(8, 3, 2)
    metric.update(None, np.zeros((4, 3), np.float32))
    logits = np.zeros((2, 3), np.float32)
    logits[1, 1] = value
    with pytest.raises(NonFiniteFeaturesError, match="images 4 to 5"):
        metric.update(None, logits)


def test_wrong_numbers_of_images():
    with pytest.raises(UserError, match="9 samples in 10 splits"):
        InceptionScore(9, 3)
    with pytest.raises(UserError, match="0 splits"):
        InceptionScore(9, 3, 0)
    metric = InceptionScore(4, 3, 2)
    metric.update(None, np.zeros((3, 3)))
    with pytest.raises(ValueError, match="3 of 4"):
        metric.result()
    with pytest.raises(ValueError, match="image 5 of 4"):
        metric.update(None, np.zeros((2, 3)))


def test_no_probabilities_are_kept():
    metric = InceptionScore(1000, 50)
    for _ in range(10):
        metric.update(None, np.zeros((100, 50)))
    held = [v.size for v in vars(metric).values() if isinstance(v, np.ndarray)]
    assert sum(held) <= 10 * 50 + 10


def test_order_and_degrees_of_freedom():
    logits = np.random.default_rng(8).normal(0, 3, (37, 5))
    order = np.random.default_rng(9).permutation(37)
    metric = InceptionScore(37, 5, 4, ddof=1, order=order)
    for start in range(0, 37, 6):
        metric.update(None, logits[start : start + 6])
    mean, std = score_by_definition(logits[order], 4)
    result = metric.result()
    assert result["inception_score_mean"] == pytest.approx(mean, rel=1e-9)
    assert result["inception_score_std"] == pytest.approx(std * (4 / 3) ** 0.5, rel=1e-9)


def test_deviation_of_one_split_is_undefined():
    metric = InceptionScore(6, 3, 1, ddof=1)
    metric.update(None, np.eye(6, 3))
    assert np.isnan(metric.result()["inception_score_std"])

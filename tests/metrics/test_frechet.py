"""The Fréchet distance against closed forms, SciPy's root and the SVD that the original takes."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.metrics import frechet
from common.metrics.errors import NonFiniteFeaturesError
from common.metrics.frechet import (
    FrechetInceptionDistance,
    GaussianAccumulator,
    GaussianStatistics,
    frechet_distance,
    pooled,
)
from common.metrics.protocols import DISTANCES


def fit(features, batch_sizes=(10**9,)):
    accumulator = GaussianAccumulator(features.shape[1])
    start = turn = 0
    while start < len(features):
        batch = features[start : start + batch_sizes[turn % len(batch_sizes)]]
        accumulator.update(batch)
        start, turn = start + len(batch), turn + 1
    return accumulator.statistics()


def random_features(count, size, seed, scale=1.0):
    """Correlated, skewed and not negative, as after a ReLU and an average pooling."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(size, size)) / np.sqrt(size)
    return np.maximum(rng.normal(0.3, scale, (count, size)) @ mixing, 0)


def moments(features):
    features = features.astype(np.float64)
    return features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False))


def distance_by_sqrtm(real, fake):
    (mu_r, s_r), (mu_f, s_f) = moments(real), moments(fake)
    root = scipy.linalg.sqrtm(s_r @ s_f).real
    return ((mu_r - mu_f) ** 2).sum() + np.trace(s_r + s_f - 2 * root)


def root_by_svd(matrix):
    u, s, v = np.linalg.svd(matrix)
    return u @ np.diag([x if x < 1e-10 else x**0.5 for x in s]) @ v


def distance_by_svd(real, fake):
    """The original's formula, word for word, in float64."""
    (mu_r, s_r), (mu_f, s_f) = moments(real), moments(fake)
    root = root_by_svd(s_r)
    trace = np.trace(root_by_svd(root @ s_f @ root))
    return ((mu_r - mu_f) ** 2).sum() + np.trace(s_r) + np.trace(s_f) - 2 * trace


def distance_by_nuclear_norm(real, fake):
    """tr((S_r S_f)^1/2) is the sum of the singular values of A B^T: no root of a covariance."""
    a, b = (x - x.mean(axis=0) for x in (real, fake))
    a, b = a / np.sqrt(len(a) - 1), b / np.sqrt(len(b) - 1)
    mean = ((real.mean(axis=0) - fake.mean(axis=0)) ** 2).sum()
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return mean + (a**2).sum() + (b**2).sum() - 2 * cross


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(2, 70),
    size=st.integers(1, 6),
    batch_sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    chunk=st.integers(1, 40),
    shift=st.sampled_from([0.0, 1.0, -1e6]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_batches_equal_one_shot(*, count, size, batch_sizes, chunk, shift, seed):
    features = np.random.default_rng(seed).normal(shift, 1.0, (count, size))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frechet, "_CHUNK_ROWS", chunk)
        actual = fit(features, batch_sizes)
    mean, covariance = moments(features)
    assert actual.count == count
    np.testing.assert_allclose(actual.mean, mean, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(actual.covariance, covariance, rtol=1e-9, atol=1e-9)


def test_float32_features_are_accumulated_in_float64():
    features = (1000 + random_features(3000, 5, 0)).astype(np.float32)
    actual = fit(features, [64])
    mean, covariance = moments(features)
    np.testing.assert_allclose(actual.mean, mean, rtol=1e-13)
    np.testing.assert_allclose(actual.covariance, covariance, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(actual.covariance, actual.covariance.T)


def test_accumulated_batches_may_be_overwritten():
    accumulator, batch = GaussianAccumulator(2), np.array([[1.0, 2.0], [3.0, 5.0]])
    accumulator.update(batch)
    batch[:] = 99
    np.testing.assert_allclose(accumulator.statistics().mean, [2, 3.5])


def test_closed_form_of_diagonal_gaussians():
    rng = np.random.default_rng(1)
    mu, nu, a, b = rng.normal(size=(4, 50))
    real = GaussianStatistics(mu, np.diag(a**2), 9)
    fake = GaussianStatistics(nu, np.diag(b**2), 9)
    expected = ((mu - nu) ** 2).sum() + ((np.abs(a) - np.abs(b)) ** 2).sum()
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "m", "size"), [(200, 300, 20), (900, 500, 64)])
def test_distance_against_scipy(n, m, size):
    real, fake = random_features(n, size, 1), random_features(m, size, 2, scale=1.3)
    expected = distance_by_sqrtm(real, fake)
    assert expected > 0.1
    assert frechet_distance(fit(real), fit(fake)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(30, 500), (500, 30), (40, 25), (2, 2)])
def test_fewer_images_than_features(n, m):
    real, fake = random_features(n, 100, 3), random_features(m, 100, 4, scale=1.3)
    actual = frechet_distance(fit(real), fit(fake))
    assert actual == pytest.approx(distance_by_nuclear_norm(real, fake), rel=1e-9)
    assert actual == pytest.approx(distance_by_svd(real, fake), rel=1e-9)


def test_roots_leave_small_singular_values_as_they_are():
    """Every singular value of the second pair is below 1e-10: no root is taken of any."""
    for variance in (4e-5, 0.9e-5):
        real = GaussianStatistics(np.zeros(3), np.eye(3), 9)
        fake = GaussianStatistics(np.zeros(3), np.eye(3) * variance**2, 9)
        rooted = variance if variance**2 >= 1e-10 else variance**2
        expected = 3 + 3 * variance**2 - 2 * 3 * rooted
        assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-12)
    tiny = GaussianStatistics(np.zeros(2), np.diag([0.99e-10, 4.0]), 9)
    np.testing.assert_allclose(tiny.covariance_root, np.diag([0.99e-10, 2.0]), atol=1e-15)


def test_identity_and_symmetry():
    real, fake = fit(random_features(300, 40, 5)), fit(random_features(200, 40, 6, scale=2))
    assert abs(frechet_distance(real, real)) < 1e-9
    assert frechet_distance(real, fake) == pytest.approx(frechet_distance(fake, real), rel=1e-9)


def test_constant_images():
    constant, other = np.full((20, 7), 0.25), random_features(30, 7, 7)
    assert frechet_distance(fit(constant), fit(constant)) == 0
    mean, covariance = moments(other)
    expected = ((mean - 0.25) ** 2).sum() + np.trace(covariance)
    assert frechet_distance(fit(constant), fit(other)) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(fit(other), fit(constant)) == pytest.approx(expected, rel=1e-9)


def test_root_of_the_real_covariance_is_computed_once(monkeypatch):
    calls = []
    eigh = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda matrix: calls.append(1) or eigh(matrix))
    real, fake = fit(random_features(30, 4, 8)), fit(random_features(30, 4, 9))
    assert frechet_distance(real, fake) == frechet_distance(real, fake)
    assert len(calls) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_features_are_refused_at_once(value):
    accumulator = GaussianAccumulator(3)
    accumulator.update(np.eye(3))
    with pytest.raises(NonFiniteFeaturesError, match="images 3 to 4"):
        accumulator.update(np.array([[0, 0, 0], [0, value, 0]], np.float32))
    np.testing.assert_allclose(accumulator.statistics().mean, 1 / 3)


@pytest.mark.parametrize("count", [0, 1])
def test_no_covariance_of_a_single_image(count):
    accumulator = GaussianAccumulator(3)
    accumulator.update(np.ones((count, 3)))
    with pytest.raises(UserError, match=f"{count} image"):
        accumulator.statistics()


def test_different_numbers_of_features():
    with pytest.raises(ValueError, match="shapes"):
        frechet_distance(fit(np.eye(3)), fit(np.eye(4)))


@pytest.mark.parametrize("name", ["sqrtm", "eigenvalues"])
@pytest.mark.parametrize(("n", "m", "size"), [(200, 300, 20), (900, 500, 64)])
def test_other_ways_to_the_same_distance(name, n, m, size):
    real, fake = random_features(n, size, 1), random_features(m, size, 2, scale=1.3)
    expected = distance_by_sqrtm(real, fake)
    assert DISTANCES[name](fit(real), fit(fake)) == pytest.approx(expected, rel=1e-9)


def test_root_that_is_not_finite_is_taken_with_an_offset(monkeypatch):
    calls = []

    def sqrtm(matrix):
        calls.append(matrix)
        return (
            np.full_like(matrix, np.nan) if len(calls) == 1 else np.diag(np.sqrt(matrix.diagonal()))
        )

    monkeypatch.setattr(scipy.linalg, "sqrtm", sqrtm)
    statistics = GaussianStatistics(np.zeros(2), np.diag([4.0, 0.0]), 9)
    distance = DISTANCES["sqrtm"](statistics, statistics)
    np.testing.assert_allclose(calls[1], np.diag([(4 + 1e-6) ** 2, 1e-12]))
    assert distance == pytest.approx(8 - 2 * (4 + 2e-6), abs=1e-12)


# The distance as a metric, and its standard error


def metric_of(real, fake, batch=7):
    metric = FrechetInceptionDistance(fit(real), len(fake))
    for start in range(0, len(fake), batch):
        metric.update(fake[start : start + batch], None)
    return metric


@pytest.mark.parametrize("count", [2, 3, 5, 19, 20, 137])
@pytest.mark.parametrize("batch", [1, 7, 500])
def test_splits_and_batches_do_not_change_the_distance(count, batch):
    real, fake = random_features(60, 9, 1), random_features(count, 9, 2, scale=1.3)
    expected = frechet_distance(fit(real), fit(fake))
    assert metric_of(real, fake, batch).result()["fid"] == pytest.approx(expected, rel=1e-9)


def test_pooled_parts_equal_the_whole():
    whole = random_features(50, 6, 3) + 100
    parts = [fit(whole[:2]), fit(whole[2:31]), fit(whole[31:])]
    mean, covariance = moments(whole)
    np.testing.assert_allclose(pooled(parts).mean, mean, rtol=1e-12)
    np.testing.assert_allclose(pooled(parts).covariance, covariance, rtol=1e-9, atol=1e-12)


def test_standard_error_is_nearly_the_jackknifes():
    """That of the exact distances without one part; the two differ in the second order."""
    real, fake = random_features(300, 4, 4), random_features(3000, 4, 5, scale=1.3)
    left_out = [
        distance_by_sqrtm(real, np.delete(fake, slice(i * 300, (i + 1) * 300), axis=0))
        for i in range(10)
    ]
    expected = np.sqrt(9 / 10 * np.sum((left_out - np.mean(left_out)) ** 2))
    assert metric_of(real, fake).details()["fid_standard_error"] == pytest.approx(
        expected, rel=0.02
    )


def test_standard_error_of_one_feature_in_closed_form():
    """There the distance is `(m - mu)² + (s - sigma)²`, with derivatives by hand."""
    rng = np.random.default_rng(9)
    real, fake = rng.normal(1, 2, (50, 1)), rng.normal(0.3, 1.5, (80, 1))
    mean, deviation = fake.mean(), fake.std(ddof=1)
    influence = 2 * (mean - real.mean()) * (fake - mean)
    influence += (1 - real.std(ddof=1) / deviation) * (fake - mean) ** 2
    expected = influence.reshape(10, 8).mean(axis=1).std(ddof=1) / 10**0.5
    error = metric_of(real, fake).details()["fid_standard_error"]
    assert error == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("count", "size"), [(200, 8), (40, 50)])
def test_standard_error_is_the_scatter_of_repetitions(count, size):
    """Also where there are fewer samples than features."""
    rng = np.random.default_rng(6)
    mixing = rng.normal(size=(size, size)) / size**0.5
    real = rng.normal(size=(300, size))
    metrics = [metric_of(real, rng.normal(size=(count, size)) @ mixing + 0.3) for _ in range(150)]
    scatter = np.std([metric.result()["fid"] for metric in metrics])
    errors = [metric.details()["fid_standard_error"] for metric in metrics]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(scatter, rel=0.25)


@pytest.mark.parametrize(("count", "known"), [(2, False), (3, False), (4, True)])
def test_standard_error_needs_two_parts(count, known):
    metric = metric_of(random_features(9, 3, 7), random_features(count, 3, 8))
    assert (metric.details()["fid_standard_error"] is not None) is known


def test_missing_and_surplus_samples():
    metric = FrechetInceptionDistance(fit(random_features(9, 3, 7)), 5)
    metric.update(np.zeros((3, 3)), None)
    with pytest.raises(ValueError, match="3 of 5"):
        metric.result()
    with pytest.raises(ValueError, match="6 of 5"):
        metric.update(np.zeros((3, 3)), None)

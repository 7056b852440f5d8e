"""Precision, recall, density and coverage against their definitions on whole distance matrices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from common.errors import UserError
from common.metrics import manifold
from common.metrics.manifold import precision_recall_density_coverage


def by_definition(real, fake, k):
    """Naeem et al. 2020, equations 1 to 5, by whole matrices."""
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    real_radii = np.sort(cdist(real, real))[:, k]  # column 0 is the point itself
    fake_radii = np.sort(cdist(fake, fake))[:, k]
    distances = cdist(real, fake)
    in_real = distances <= real_radii[:, None]
    in_fake = distances <= fake_radii[None]
    return {
        "precision": np.mean([in_real[:, j].any() for j in range(len(fake))]),
        "recall": np.mean([in_fake[i].any() for i in range(len(real))]),
        "density": sum(in_real[:, j].sum() for j in range(len(fake))) / (k * len(fake)),
        "coverage": np.mean([in_real[i].any() for i in range(len(real))]),
    }


def cloud(count, size, seed, shift=0.0, scale=1.0):
    rng = np.random.default_rng(seed)
    return (shift + scale * rng.normal(size=(count, size))).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    real_count=st.integers(6, 60),
    fake_count=st.integers(6, 60),
    size=st.integers(1, 8),
    k=st.integers(1, 5),
    shift=st.floats(0, 2),
    scale=st.floats(0.2, 3),
    seed=st.integers(0, 2**31),
)
def test_any_sets_equal_the_definition(*, real_count, fake_count, size, k, shift, scale, seed):
    real, fake = cloud(real_count, size, seed), cloud(fake_count, size, seed + 1, shift, scale)
    actual = precision_recall_density_coverage(real, fake, k)
    assert list(actual) == ["precision", "recall", "density", "coverage"]
    assert actual == pytest.approx(by_definition(real, fake, k), abs=1e-9)


@pytest.mark.parametrize("elements", [1, 100, 1000])
def test_blocks_change_nothing(monkeypatch, elements):
    real, fake = cloud(90, 4, 1), cloud(70, 4, 2, 0.5)
    expected = by_definition(real, fake, 5)
    assert 0 < expected["recall"] < 1 > expected["precision"] > 0
    monkeypatch.setattr(manifold, "_BLOCK_ELEMENTS", elements)
    assert precision_recall_density_coverage(real, fake) == pytest.approx(expected, abs=1e-9)


def test_a_set_and_itself():
    real = cloud(80, 300, 3) + 50  # far from the origin, where rounding is worst
    values = precision_recall_density_coverage(real, real.copy())
    # Each sphere holds its centre and its k neighbours, the last of them exactly on it.
    assert values == {"precision": 1, "recall": 1, "density": (5 + 1) / 5, "coverage": 1}


def test_sets_apart_and_constant_images():
    real, fake = cloud(30, 3, 4), cloud(30, 3, 5, shift=1000)
    assert set(precision_recall_density_coverage(real, fake).values()) == {0}
    constant = np.full((10, 7), 0.1, np.float32)
    values = precision_recall_density_coverage(constant, constant)
    assert values == {"precision": 1, "recall": 1, "density": 10 / 5, "coverage": 1}


def test_dropped_modes_lower_the_recall_and_not_the_precision():
    modes = np.repeat([[0.0], [100.0]], 50, axis=0)
    real = cloud(100, 2, 6) + modes
    fake = cloud(100, 2, 7)
    values = precision_recall_density_coverage(real, fake)
    assert values["precision"] > 0.85
    assert values["recall"] <= 0.5 >= values["coverage"]


@pytest.mark.parametrize(("real", "fake"), [(5, 90), (90, 5), (0, 6)])
def test_too_few_images(real, fake):
    with pytest.raises(UserError, match="at least 6"):
        precision_recall_density_coverage(cloud(real, 3, 0), cloud(fake, 3, 1))

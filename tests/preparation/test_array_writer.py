"""Writing an array by several hands: the images stand in order, without gaps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.preparation.array_writer import write_array

SHAPE = (2, 3, 3)


def images(first, count):
    """`count` distinct images, by their numbers."""
    numbers = np.arange(first, first + count)[:, None, None, None]
    return ((numbers * 7 + np.arange(18).reshape(SHAPE)) % 256).astype(np.uint8)


@settings(deadline=None)
@given(
    blocks=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=8),
    order=st.randoms(use_true_random=False),
)
def test_gaps_close(tmp_path_factory, blocks, order):
    """Each block has room for what is made and what is skipped; all are written in any order."""
    target = tmp_path_factory.mktemp("array") / "a.npy"
    starts = np.cumsum([0, *(made + skipped for made, skipped in blocks)]).tolist()
    numbered = list(zip(starts, blocks, strict=False))
    with write_array(target, SHAPE) as array:
        for start, (made, _) in order.sample(numbered, len(numbered)):
            with array.places.open() as file:
                array.places.fill(file, start, images(start, made))
        for start, (made, _) in numbered:
            array.take(start, made)
        assert array.count == sum(made for made, _ in blocks)
    expected = [images(start, made) for start, (made, _) in numbered]
    loaded = np.load(target)
    np.testing.assert_array_equal(loaded, np.concatenate([images(0, 0), *expected]))
    assert target.stat().st_size == 128 + loaded.size
    assert [path.name for path in target.parent.iterdir()] == ["a.npy"]


def test_images_of_another_kind_do_not_overwrite_their_neighbours(tmp_path):
    with write_array(tmp_path / "a.npy", SHAPE) as array, array.places.open() as file:
        for wrong in (np.zeros((2, 3, 3, 3), np.uint8), np.zeros((2, *SHAPE), np.float32)):
            with pytest.raises(ValueError, match="expected uint8"):
                array.places.fill(file, 0, wrong)
        with pytest.raises(OSError, match="ends before image 9"):
            array.places.read(file, 5, 4)


def test_appended_and_filled(tmp_path):
    with write_array(tmp_path / "a.npy", SHAPE) as array:
        array.append(images(0, 4))
        with array.places.open() as file:
            array.places.fill(file, 6, images(6, 2))
        array.take(6, 2)
        with pytest.raises(ValueError, match="place 5 is taken"):
            array.take(5, 1)
        with pytest.raises(ValueError, match="expected uint8"):
            array.append(np.zeros((1, 2, 2, 3), np.uint8))
        array.append(images(8, 1))
    expected = np.concatenate([images(0, 4), images(6, 3)])
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), expected)

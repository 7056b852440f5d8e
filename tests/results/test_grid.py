"""Sample grids: where each image is, and which grey it has."""

import numpy as np
import pytest
from PIL import Image

from common.pixels import to_uint8
from common.results.grid import make_grid, save_png


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_ends_and_the_middle(dtype):
    pixels = to_uint8(np.array([-1, 1, 0, -1.5, 7, -np.inf, np.inf], dtype))
    assert pixels.dtype == np.uint8
    assert pixels[[0, 1, 3, 4, 5, 6]].tolist() == [0, 255, 0, 255, 0, 255]
    assert pixels[2] in (127, 128)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_grey_survives_the_datas_own_scaling(dtype):
    greys = np.arange(256)
    assert to_uint8((greys / 255 * 2 - 1).astype(dtype)).tolist() == greys.tolist()


def test_values_are_rounded_to_the_nearest_grey():
    step = 2 / 255
    values = np.array([100.4, 100.6]) * step - 1
    assert to_uint8(values).tolist() == [100, 101]


def numbered(rows, columns, height, width):
    """Images of one grey each: the first is 0, the second 1, ..."""
    greys = np.arange(rows * columns, dtype=np.float32) / 255 * 2 - 1
    return np.broadcast_to(greys[:, None, None, None], (rows * columns, height, width, 3))


def test_images_stand_row_by_row():
    grid = make_grid(numbered(2, 3, 4, 5), 2, 3)
    assert (grid.shape, grid.dtype) == ((8, 15, 3), np.uint8)
    for index in range(6):
        row, column = divmod(index, 3)
        cell = grid[4 * row : 4 * row + 4, 5 * column : 5 * column + 5]
        assert set(cell.ravel().tolist()) == {index}


def test_an_image_keeps_its_own_orientation_and_colours():
    images = np.random.default_rng(0).uniform(-1, 1, (6, 4, 5, 3))
    grid = make_grid(images, 3, 2)
    assert np.array_equal(grid[4:8, 5:10], to_uint8(images[3]))
    assert np.array_equal(grid[8:12, 0:5], to_uint8(images[4]))


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (1, 6), (6, 6)])
def test_another_number_of_images_is_refused(rows, columns):
    with pytest.raises(ValueError, match=f"5 images do not fill a grid of {rows} x {columns}"):
        make_grid(np.zeros((5, 2, 2, 3)), rows, columns)


def test_a_png_has_the_same_pixels(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    path = tmp_path / "global_id-199.png"
    save_png(path, pixels)
    with Image.open(path) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (53, 37))
        assert np.array_equal(np.asarray(image), pixels)
    save_png(path, pixels[:5])
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), pixels[:5])
    assert [path] == list(tmp_path.iterdir())

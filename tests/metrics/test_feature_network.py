"""What all feature networks share."""

import numpy as np
import pytest
import tensorflow as tf

from common.metrics.feature_network import FeatureNetwork, resize_bilinear_tf1
from common.pixels import scale_pixels


def resize_by_numpy(images, size):
    """TF1's bilinear resize by its definition: pixel i is read at i * in / out, in float64."""
    for axis in (1, 2):
        length = images.shape[axis]
        position = np.arange(size) * (np.float32(length) / np.float32(size)).astype(np.float64)
        lower = np.floor(position).astype(int)
        upper = np.minimum(lower + 1, length - 1)
        shape = [1, 1, 1, 1]
        shape[axis] = size
        weight = (position - lower).reshape(shape)
        images = images.astype(np.float64)
        images = images.take(lower, axis) * (1 - weight) + images.take(upper, axis) * weight
    return images


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 299), (48, 40, 32), (5, 7, 7)])
def test_resize_against_numpy(height, width, size):
    images = np.random.default_rng(0).uniform(-1, 1, (2, height, width, 3)).astype(np.float32)
    actual = resize_bilinear_tf1(tf.constant(images), size).numpy()
    np.testing.assert_allclose(actual, resize_by_numpy(images, size), atol=2e-5)


def test_resize_is_none_of_the_later_ones():
    """Half-pixel centres or antialiasing, TensorFlow 2's choices, would show."""
    image = tf.reshape(tf.range(4, dtype=tf.float32), [1, 1, 4, 1])
    enlarged = resize_bilinear_tf1(tf.tile(image, [1, 4, 1, 1]), 8)[0, 0, :, 0]
    np.testing.assert_array_equal(enlarged, [0, 0.5, 1, 1.5, 2, 2.5, 3, 3])
    shrunk = resize_bilinear_tf1(tf.tile(image, [1, 4, 1, 1]), 2)[0, 0, :, 0]
    np.testing.assert_array_equal(shrunk, [0, 2])


def test_pixels_span_the_interval():
    scaled = scale_pixels(np.arange(256, dtype=np.uint8))
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, np.arange(256) / 127.5 - 1, atol=1e-7)
    assert (scaled[0], scaled[255]) == (-1, 1)


OPTIMIZERS = ("remapping", "arithmetic_optimization", "dependency_optimization")


def test_a_network_is_optimised_alike_in_a_training_and_elsewhere():
    options = tf.config.optimizer
    before = options.get_experimental_options()
    try:
        for switch_on in (False, True):
            options.set_experimental_options(dict.fromkeys(OPTIMIZERS, switch_on))
            network = Watching()
            network(tf.zeros([1, 4, 4, 3]))
            assert network.optimizers == [[True] * 3]
            found = options.get_experimental_options()
            assert [found[name] for name in OPTIMIZERS] == [switch_on] * 3
    finally:
        options.set_experimental_options({name: before.get(name, True) for name in OPTIMIZERS})


class Watching(FeatureNetwork):
    """Notes, when it is traced, which graph optimisers run."""

    name, column_prefix, input_size, num_features, num_classes = "watching", "watching_", 4, 3, 3

    def __init__(self):
        self.optimizers = []
        super().__init__("0", {})

    def embed(self, images):
        options = tf.config.optimizer.get_experimental_options()
        self.optimizers.append([options.get(name) for name in OPTIMIZERS])
        return images[:, 0, 0], images[:, 0, 0]

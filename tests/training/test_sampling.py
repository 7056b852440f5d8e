"""What generators are looked at and measured by."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import graph_optimizers
from common.training.sampling import Sampler, row_labels
from tests.training.small import RUNS, VARIANTS, small_networks, small_settings

LATENT_DIM = 8


class Recorder(keras.Model):
    """A generator whose image is its inputs: the first latent and the label."""

    def call(self, inputs, training=None):
        assert not training
        latents, labels = inputs if isinstance(inputs, (list, tuple)) else (inputs, None)
        first = latents[:, :1]
        second = tf.zeros_like(first) if labels is None else tf.cast(labels, first.dtype)[:, None]
        return tf.concat([first, second, second], 1)[:, None, None, :]


def sampler(classes=None):
    variant, own = RUNS["labels"] if classes else (VARIANTS["no_gamma_cnn"], {})
    settings = small_settings(variant, **own)
    return Sampler(tf.distribute.get_strategy(), Recorder(), settings, 3, classes)


@pytest.mark.parametrize(
    ("rows", "classes", "labels"),
    [
        (10, 10, list(range(10))),
        (4, 10, [0, 2, 5, 7]),
        (10, 1000, list(range(0, 1000, 100))),
        (5, 2, [0, 1, 0, 1, 0]),
        (1, 3, [0]),
    ],
)
def test_a_grid_has_a_row_for_each_class(rows, classes, labels):
    assert row_labels(rows, classes).tolist() == labels


def test_a_labelled_grid_has_one_class_a_row_and_one_latent_a_column():
    images = sampler(classes=5).grid(5, 3, at_a_time=4).reshape(5, 3, 3)
    np.testing.assert_array_equal(images[:, :, 1], np.repeat(np.arange(5)[:, None], 3, axis=1))
    assert len(set(images[0, :, 0])) == 3
    for row in images[1:]:
        np.testing.assert_array_equal(row[:, 0], images[0, :, 0])


def test_a_grid_without_labels_has_a_latent_of_its_own_in_every_place():
    one, two = (sampler().grid(5, 3, at_a_time=4) for _ in range(2))
    assert len(set(one[:, 0, 0, 0])) == 15
    np.testing.assert_array_equal(one, two)


def test_metrics_draw_labels_uniformly_and_new_ones_each_time():
    chosen = sampler(classes=5)
    latents, labels = chosen.metric_inputs(7, 2000)
    assert latents.shape == (2000, LATENT_DIM)
    counts = np.bincount(labels, minlength=5)
    assert len(counts) == 5
    assert counts.min() > 330
    assert not np.array_equal(labels, chosen.metric_inputs(8, 2000)[1])
    np.testing.assert_array_equal(labels, sampler(classes=5).metric_inputs(7, 2000)[1])


def test_samples_by_number_are_those_of_their_latents_and_labels():
    chosen = sampler(classes=5)
    latents, labels = chosen.metric_inputs(7)
    images = chosen.metric_samples(7).read(np.array([3, 1]))
    np.testing.assert_allclose(images[:, 0, 0, 0], latents.numpy()[[3, 1], 0])
    np.testing.assert_array_equal(images[:, 0, 0, 1], labels.numpy()[[3, 1]])
    assert sampler().metric_inputs(7)[1] is None


def test_images_are_the_same_before_and_after_training_in_a_process():
    """After a resume the missing metrics come first, and must be those of an uninterrupted run."""
    variant, own = RUNS["labels"]
    settings = small_settings(variant, **own)
    generator = small_networks(settings).generator

    def images():
        sampler = Sampler(tf.distribute.get_strategy(), generator, settings, 3, 5)
        return sampler.generate(*sampler.metric_inputs(0, 200)).numpy()

    graph_optimizers.restrain()
    after = images()
    with graph_optimizers.unrestrained():  # as they are where nothing has been trained
        before = images()
    np.testing.assert_array_equal(before, after)

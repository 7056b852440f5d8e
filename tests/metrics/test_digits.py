"""The network for digits: accuracy, determinism, cache, precision."""

import json
import logging
import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.data.digits import load_digits
from common.metrics import digits, open_network
from common.pixels import scale_pixels


@pytest.fixture(scope="module")
def data():
    return load_digits()


@pytest.fixture(scope="module")
def held_out(data):
    """A network that has seen 1,400 digits, and the other 397."""
    images, labels = data
    order = np.random.default_rng(0).permutation(len(images))
    seen, unseen = order[:1400], order[1400:]
    model = digits.train_classifier(images[seen], labels[seen])
    return model, images[unseen], labels[unseen]


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def network(cache_dir):
    return open_network("digits", cache_dir=cache_dir)


def test_accuracy_on_held_out_digits(held_out):
    model, images, labels = held_out
    _, logits = model(scale_pixels(images))
    assert np.mean(logits.numpy().argmax(axis=1) == labels) >= 0.95


def test_features_are_the_penultimate_layer(network, data):
    images = scale_pixels(data[0][:50])
    features, logits = network(tf.constant(images))
    assert features.shape == (50, network.num_features)
    assert logits.shape == (50, network.num_classes)
    assert features.dtype == logits.dtype == tf.float32
    assert (features.numpy() >= 0).all()
    kernel, bias = network._model.get_layer("logits").get_weights()
    np.testing.assert_allclose(features.numpy() @ kernel + bias, logits, rtol=1e-4, atol=1e-4)
    assert np.mean(logits.numpy().argmax(axis=1) == data[1][:50]) > 0.95


def test_columns_cannot_be_mistaken_for_inception(network):
    assert network.column_prefix == "digits_"
    assert network.provenance["name"] == "digits"
    assert json.loads(json.dumps(network.provenance)) == network.provenance


def test_weights_are_read_back_and_not_trained_again(network, cache_dir, monkeypatch):
    monkeypatch.setattr(digits, "train_classifier", lambda *_: pytest.fail("trained again"))
    again = digits.open_digits(cache_dir)
    assert again.provenance == network.provenance
    (file,) = (cache_dir / "models").iterdir()
    assert list(network.provenance["files"]) == [file.name]
    images = tf.random.stateless_uniform([3, 32, 32, 3], [1, 2], -1, 1)
    np.testing.assert_array_equal(again(images)[1], network(images)[1])


def test_damaged_weights_are_reported_and_trained_again(
    held_out, network, tmp_path, monkeypatch, caplog
):
    (tmp_path / "models").mkdir()
    (name,) = network.provenance["files"]
    (tmp_path / "models" / name).write_bytes(b"PK damaged")
    monkeypatch.setattr(digits, "train_classifier", lambda *_: held_out[0])
    with caplog.at_level(logging.WARNING):
        again = digits.open_digits(tmp_path)
    assert "damaged" in caplog.text
    assert name in caplog.text
    assert again.provenance["sha256"] != network.provenance["sha256"]


def test_training_has_its_own_seeds_and_precision(monkeypatch):
    """Global seeds, policies and Keras' default precision change nothing, nor are they changed."""
    monkeypatch.setitem(digits._RECIPE, "epochs", 1)
    images, labels = load_digits()
    images, labels = images[:96], labels[:96]
    first = digits.model_weights(digits.train_classifier(images, labels))
    floatx = keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.utils.set_random_seed(11)
    try:
        second = digits.model_weights(digits.train_classifier(images, labels))
        network = digits.DigitsNetwork(second, {})
        features, logits = network(tf.zeros([2, 32, 32, 3], tf.float32))
        drawn = random.random(), float(tf.random.uniform([]))
    finally:
        keras.config.set_floatx(floatx)
    keras.utils.set_random_seed(11)
    assert drawn == (random.random(), float(tf.random.uniform([])))
    assert features.dtype == logits.dtype == tf.float32
    for name, array in first.items():
        assert array.dtype == second[name].dtype == np.float32
        np.testing.assert_allclose(array, second[name], rtol=1e-5, atol=1e-6)


def test_other_image_sizes_are_resized(network):
    features, _ = network(tf.zeros([1, 48, 64, 3]))
    assert features.shape == (1, 64)

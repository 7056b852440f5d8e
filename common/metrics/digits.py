"""A small network for handwritten digits, for evaluations without any download.

Its values compare runs with each other; they are not Inception Scores or FIDs and never appear
under those names.
"""

import logging
import os
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from common.data.digits import load_digits
from common.metrics.cache import (
    Arrays,
    cache_folder,
    content_digest,
    key_digest,
    load_or_compute,
)
from common.metrics.feature_network import FeatureNetwork
from common.metrics.rows import NetworkFiles
from common.pixels import scale_pixels

logger = logging.getLogger(__name__)

CACHE_SUBFOLDER = "models"
SIZE = 32
FEATURES = 64
CLASSES = 10

# Part of the cache file's name: change it whenever layers or training change.
_RECIPE: dict[str, Any] = {
    "version": 1,
    "seed": 20210923,
    "epochs": 12,
    "batch_size": 32,
    "learning_rate": 1e-3,
}


def build_classifier() -> keras.Model:
    """Builds the untrained network, its initial weights being always the same.

    Returns:
        A model from float32 `[n, 32, 32, 3]` in [-1, 1] to features `[n, 64]` (not negative)
        and logits `[n, 10]`, both float32 whatever Keras' default.
    """

    def start(layer: int) -> keras.initializers.Initializer:
        return keras.initializers.GlorotUniform(seed=_RECIPE["seed"] + layer)

    def conv(layer: int, filters: int) -> keras.layers.Layer:
        return keras.layers.Conv2D(
            filters, 3, strides=2, padding="same", activation="relu", dtype="float32",
            kernel_initializer=start(layer), name=f"conv{layer}",
        )  # fmt: skip

    images = keras.Input([SIZE, SIZE, 3], dtype="float32", name="images")
    hidden = conv(2, 32)(conv(1, 16)(images))
    hidden = keras.layers.Flatten(dtype="float32", name="flatten")(hidden)
    features = keras.layers.Dense(
        FEATURES, "relu", dtype="float32", kernel_initializer=start(3), name="features"
    )(hidden)
    logits = keras.layers.Dense(
        CLASSES, dtype="float32", kernel_initializer=start(4), name="logits"
    )(features)
    return keras.Model(images, [features, logits], name="digits")


def train_classifier(images: np.ndarray, labels: np.ndarray) -> keras.Model:
    """Trains the network, with its own seeds and without touching global ones.

    Args:
        images: uint8 `[n, 32, 32, 3]`.
        labels: int64 `[n]`, 0 to 9.

    Returns:
        The trained model, as `build_classifier` describes it.
    """
    model = build_classifier()
    classifier = keras.Model(model.input, model.output[1])
    classifier.compile(
        keras.optimizers.Adam(_RECIPE["learning_rate"]),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float32"),
    )
    rng = np.random.Generator(np.random.Philox(key=_RECIPE["seed"]))
    pixels = scale_pixels(images).numpy()
    for _ in range(_RECIPE["epochs"]):
        order = rng.permutation(len(images))
        # Keras' own shuffling would depend on the global seed.
        classifier.fit(
            pixels[order], labels[order], _RECIPE["batch_size"], shuffle=False, verbose=0
        )
    return model


class DigitsNetwork(FeatureNetwork):
    """The trained network: penultimate layer as features, ten digits as classes."""

    name = "digits"
    column_prefix = "digits_"
    input_size = SIZE
    num_features = FEATURES
    num_classes = CLASSES

    def __init__(self, weights: Arrays, files: dict[str, str]) -> None:
        """Builds the network around given weights.

        Args:
            weights: Arrays by variable path, as `model_weights` returns them.
            files: File name to SHA-256 of the arrays read from it.
        """
        self._model = build_classifier()
        for variable in self._model.variables:
            variable.assign(weights[variable.path])
        super().__init__(content_digest(weights), files)

    def embed(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Applies the model to `[n, 32, 32, 3]` images in [-1, 1]; see the base class."""
        features, logits = self._model(images, training=False)
        return features, logits


def model_weights(model: keras.Model) -> Arrays:
    """Returns a model's variables as arrays by path."""
    return {variable.path: variable.numpy() for variable in model.variables}


def open_digits(cache_dir: str | os.PathLike | None = None) -> DigitsNetwork:
    """Opens the network, training it on scikit-learn's 1,797 digits on first use.

    Training takes seconds. Weights from another machine differ in their last bits, so values
    compare exactly only under one `provenance["sha256"]`.

    Args:
        cache_dir: Root of the cache; None for Keras' own.

    Returns:
        The network.

    Raises:
        UserError: scikit-learn is not installed, or the cache cannot be written.
    """
    images, labels = load_digits()
    key = {"recipe": _RECIPE, "data": content_digest({"images": images, "labels": labels})}
    path = cache_folder(cache_dir, CACHE_SUBFOLDER) / f"digits-{key_digest(key)[:16]}.npz"

    def train() -> Arrays:
        logger.info("training the network 'digits' on %d images, once", len(images))
        start = time.perf_counter()
        weights = model_weights(train_classifier(images, labels))
        logger.info("trained in %.1f s; weights are kept in %s", time.perf_counter() - start, path)
        return weights

    weights = load_or_compute(path, key, train)
    return DigitsNetwork(weights, {path.name: content_digest(weights)})


def open_by_files(files: NetworkFiles) -> DigitsNetwork:
    """`open_digits`, as the network's row asks; it makes its weights itself."""
    return open_digits(files.cache_dir)

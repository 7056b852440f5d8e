"""Settings that every test runs under."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest

from common.training.run import set_precision


@pytest.fixture(scope="module", autouse=True)
def _free_graphs():
    """TensorFlow keeps traced graphs; walking them again and again would take minutes."""
    yield
    keras.backend.clear_session()
    gc.collect()
    gc.freeze()


@pytest.fixture
def float64():
    """Runs the test with Keras' floatx set to float64."""
    set_precision("float64")
    yield
    set_precision("float32")

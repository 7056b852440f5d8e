"""Settings that every test runs under."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest

from common.training.run import set_precision


@pytest.fixture
def float64():
    """Runs the test with Keras' floatx set to float64."""
    set_precision("float64")
    yield
    set_precision("float32")

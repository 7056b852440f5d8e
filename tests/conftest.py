"""Settings that every test runs under."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest

from tests.replay_golden import set_floatx


@pytest.fixture
def float64():
    """Runs the test with Keras' floatx set to float64."""
    set_floatx("float64")
    yield
    set_floatx("float32")

"""Training on several devices: the numbers of one device, or of an oracle on one."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.errors import UserError
from common.layers import moving_average_advances
from common.training import devices
from common.training.batches import BatchPipeline
from common.training.plain_step import PlainStep
from tests.training.small import VARIANTS, noise_source, small_networks, small_settings
from tests.training.train_on_devices import BATCH_SEED, ITERATIONS, STEP_SEED


def train(folder, name, count, mode):
    output = folder / f"{name}-{count}-{mode}.npz"
    module = "tests.training.train_on_devices"
    subprocess.run(
        [sys.executable, "-m", module, name, str(count), mode, output], check=True, timeout=300
    )
    with np.load(output) as results:
        return dict(results)


def is_comparable(name):
    """Extremes and gradient norms are a replica's, not the batch's, and then averaged."""
    return not name.startswith(("d/min_", "d/max_", "gradient_norm/"))


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        pytest.param("diff_gamma_cnn", "frozen", marks=pytest.mark.slow),
        ("labels", "training"),  # no batch norm
        pytest.param("fused labels", "frozen", marks=pytest.mark.slow),
    ],
)
def test_two_devices_train_as_one(tmp_path, name, mode):
    """Five iterations, the same global batch, batch norm in inference mode."""
    one, two = (train(tmp_path, name, count, mode) for count in (1, 2))
    assert one.keys() == two.keys()
    for key in filter(is_comparable, one):
        np.testing.assert_allclose(two[key], one[key], rtol=1e-9, atol=1e-9, err_msg=key)


class TwoHalves(PlainStep):
    """One device that normalises each half of a batch by its own statistics."""

    def _generate(self, latents, labels):
        first, second = tf.split(latents, 2)
        # The first replica's statistics reach the moving averages.
        parts = [super()._generate(first, labels)]
        with moving_average_advances(0):
            parts.append(super()._generate(second, labels))
        return tf.concat(parts, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["no_gamma_cnn"])
def test_each_device_normalises_by_its_own_statistics(tmp_path, name, float64):
    del float64
    variant = VARIANTS[name]
    settings = small_settings(variant)
    oracle = TwoHalves(settings, small_networks(settings, STEP_SEED))
    pipeline = BatchPipeline(noise_source(8), settings, BATCH_SEED)
    batches, redrawn = iter(pipeline.discriminator_batches(0)), iter(pipeline.generator_batches(0))
    for _ in range(ITERATIONS):
        for index in range(settings.n_dis):
            batch = next(batches)
            if index < settings.n_dis - 1:
                oracle.discriminator_step(batch)
        oracle.last_steps(batch, next(redrawn) if settings.redraw_latents else None)
    results = train(tmp_path, name, 2, "training")
    for model in (oracle.generator, oracle.discriminator):
        for variable in model.weights:
            key = f"{model.name}/{variable.path}"
            np.testing.assert_allclose(
                results[key], variable, rtol=1e-5, atol=1e-7, err_msg=variable.path
            )


def test_one_device_needs_no_strategy():
    assert devices.open_strategy(1) is tf.distribute.get_strategy()


def test_more_gpus_than_there_are_is_an_error(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda gpu, on: None)
    with pytest.raises(UserError, match=r"names 2 devices .* sees 1"):
        devices.open_strategy(2)


def test_devices_that_come_too_late_are_a_defect_and_say_so():
    keras.ops.zeros(1)
    with pytest.raises(RuntimeError, match="before any other use"):
        devices.open_strategy(7)


def test_metrics_use_all_devices_and_are_those_of_one(tmp_path):
    command = [sys.executable, "-m", "tests.training.evaluate_on_devices", tmp_path]
    output = subprocess.run(command, check=True, timeout=200, capture_output=True, text=True).stdout
    difference, devices_used = output.split()[-2:]
    assert float(difference) < 1e-9
    assert int(devices_used) == 2

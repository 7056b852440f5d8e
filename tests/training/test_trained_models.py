"""What a path names of trained networks."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.errors import UserError
from common.results.run_folder import RunFolder
from common.training.trained_models import holds_models, open_models
from tests.training.runs import SEED, train
from tests.training.small import VARIANTS

MARKED = [
    pytest.param(name, marks=pytest.mark.slow if name == "no_gamma_resnet" else ())
    for name in VARIANTS
]


@pytest.fixture(scope="module", params=MARKED)
def trained(request, tmp_path_factory):
    """`(step, folder)` of a small run of each variant."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    step = train(folder, request.param, evaluate=False)
    weights = [
        {variable.path: variable.numpy() for variable in model.variables}
        for model in (step.generator, step.discriminator)
    ]
    return weights, folder


def weights_of(model):
    return {variable.path: variable.numpy() for variable in model.variables}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_both_networks_of_a_run_are_as_they_were_trained(trained):
    """Whatever the variant, which a record does not name: gammas, network, loss."""
    (generator, discriminator), folder = trained
    assert holds_models(folder)
    models = open_models(folder)
    assert_equal(weights_of(models.generator), generator)
    assert_equal(weights_of(models.discriminator), discriminator)
    assert (models.name, models.settings.iteration) == ("model-3", 4)
    assert models.record == {"checkpoint": str(folder / "checkpoint" / "model-3")}
    assert models.latent_dim == 8
    assert models.classes is None


@pytest.fixture
def run(tmp_path):
    train(tmp_path / "run", evaluate=False)
    return RunFolder(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model-1", "model-1"),
        ("model-1.index", "model-1"),
        ("model-3.index", "model-3"),
        ("global_id-3", "global_id-3/model-3"),
        ("global_id-3/model-3", "global_id-3/model-3"),
    ],
)
def test_checkpoints_by_their_names(run, name, expected):
    path = run.checkpoints / name
    assert holds_models(path)
    models = open_models(path)
    assert models.record["checkpoint"] == str(run.checkpoints / expected)
    images = models.images()
    assert len(images) == 40
    assert images.record == {**models.record, "images": 40}
    assert images.seed == models.seed != SEED  # the seed that the run's settings give
    latents, _ = models.draw_inputs(None, 0)
    assert latents.shape == (40, 8)
    some = images.read(np.array([3, 4]))
    np.testing.assert_allclose(some, models.generator(latents[3:5], training=False), atol=1e-6)


def test_of_a_run_the_newest_checkpoint_that_can_be_restored(run, caplog):
    for path in run.checkpoints.glob("**/model-3.data*"):
        path.write_bytes(b"")
    models = open_models(run.path)
    assert models.name == "model-1"
    assert "model-3 cannot be restored" in caplog.text
    for path in run.checkpoints.glob("**/model-*.data*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"model-3 cannot be restored.*model-1 cannot be restored"):
        open_models(run.path)


def test_what_is_no_checkpoint(run, tmp_path):
    shutil.copytree(run.checkpoints, tmp_path / "alone")
    with pytest.raises(UserError, match=r"without a run\.json above it"):
        holds_models(tmp_path / "alone" / "model-3")
    for path in run.checkpoints.glob("**/*.index"):
        path.unlink()
    with pytest.raises(UserError, match="no checkpoint yet"):
        open_models(run.path)
    assert not holds_models(tmp_path / "nowhere")
    assert not holds_models(tmp_path)
    with pytest.raises(UserError, match="nowhere is not a run"):
        open_models(tmp_path / "nowhere")
    with pytest.raises(UserError, match="name too long"):
        holds_models(tmp_path / ("x" * 300))


def small_generator():
    latents = keras.Input([4])
    images = keras.layers.Reshape([2, 2, 3])(keras.layers.Dense(12, activation="tanh")(latents))
    return keras.Model(latents, images)


@pytest.mark.parametrize("kind", ["keras", "saved_model"])
def test_exports(tmp_path, kind):
    model = small_generator()
    path = tmp_path / ("generator.keras" if kind == "keras" else "exported")
    model.save(path) if kind == "keras" else model.export(path, verbose=False)
    assert holds_models(path)
    models = open_models(path)
    assert (models.discriminator, models.settings, models.latent_dim) == (None, None, 4)
    images = models.images(20, 3)
    assert images.record == {"generator": str(path), "seed": 3, "images": 20}
    latents, _ = models.draw_inputs(20, 3)
    expected = model(latents, training=False).numpy()
    np.testing.assert_allclose(images.read(np.arange(5, 9)), expected[5:9], atol=1e-6)
    assert not np.allclose(latents, models.draw_inputs(20, 4)[0])


def test_exports_that_are_no_generators(tmp_path):
    (tmp_path / "damaged.keras").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"damaged\.keras cannot be loaded as a generator"):
        open_models(tmp_path / "damaged.keras")
    images = keras.Input([2, 2, 3])
    keras.Model(images, keras.layers.ReLU()(images)).save(tmp_path / "images.keras")
    with pytest.raises(UserError, match=r"takes \[None, 2, 2, 3\] instead of latents"):
        open_models(tmp_path / "images.keras")
    two = [keras.Input([2]), keras.Input([2])]
    keras.Model(two, keras.layers.Add()(two)).export(tmp_path / "two", verbose=False)
    with pytest.raises(UserError, match="2 inputs and 1 outputs"):
        open_models(tmp_path / "two")
    assert tf.io.gfile.exists(str(tmp_path / "two"))

"""What keeps a job from starting is found before any is trained."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from common.choices import search_in
from common.errors import UserError
from common.results.run_folder import RunFolder
from common.training import run
from common.training.checks import check_job
from common.training.trained_models import open_models
from common.training.trained_run import TrainedRun, fill_metrics
from tests.training.runs import train
from tests.training.small import RUNS, VARIANTS, small_settings

DIGITS = {"mg": 4}
OWN = "tests.examples.own_network"


@pytest.fixture(scope="module")
def resources():
    return run.Resources(run.RunOptions(data_dir=Path("data"), metrics=()))


def settings_of(kind="no_gamma_cnn", **changes):
    variant, own = RUNS[kind]
    return small_settings(variant, **{**DIGITS, **own, **changes})


@pytest.mark.parametrize(
    ("changes", "replicas", "message"),
    [
        ({"mg": 2}, 1, r"mg=2 gives images of 16x16.*--set mg=4"),
        ({"batch_size": 3}, 2, "batch_size=3 cannot be split equally among 2"),
        ({"jit_compile": True}, 2, "jit_compile=True is for one device"),
        ({"step": "fused", "sn_mode": "BN"}, 1, r"step=fused.*layer1\.norm.*step=plain"),
        ({"sampling": "shuffled", "batch_size": 64}, 2, "an epoch's last batch=5 cannot be split"),
        (
            {"sampling": "shuffled", "batch_size": 5000, "last_batch": "drop"},
            1,
            "more than the 1,797 of digits",
        ),
    ],
)
def test_what_does_not_fit(resources, changes, replicas, message):
    with pytest.raises(UserError, match=message):
        check_job(settings_of(**changes), resources, replicas)


@pytest.mark.parametrize(
    "changes", [{"sn_mode": "SN"}, {"scale": 1.5}, {"gamma": "shared"}, {"g_sn_mode": "SN"}]
)
def test_a_normalisation_that_the_network_takes_no_notice_of(resources, changes):
    """The folder's name would say what the network is not."""
    settings = settings_of(network="tests.training.own_networks:subclassed", **changes)
    ((key, value),) = changes.items()
    with pytest.raises(UserError, match=rf"not use spec\.normalization, so that {key}={value} "):
        check_job(settings, resources, 1)


def test_what_fits(resources):
    check_job(settings_of(), resources, 2)
    check_job(settings_of("labels"), resources, 1)
    check_job(settings_of(step="fused"), resources, 1)
    whole_epochs = {"sampling": "shuffled", "last_batch": "drop", "batch_size": 64}
    check_job(settings_of(**whole_epochs), resources, 2)


WRONG = """
import keras
from common.networks import Network

def build(spec):
    z = keras.Input((spec.latent_dim,))
    return keras.Model(z, keras.layers.Reshape((32, 32, 1))(keras.layers.Dense(1024)(z)))

def score(spec):
    x = keras.Input(spec.image_shape)
    return keras.Model(x, keras.layers.Dense(2)(keras.layers.Flatten()(x)))

grey = Network(build, lambda spec: keras.Model((x := keras.Input((32, 32, 1))), score_of(x)))
two = Network(lambda spec: rgb(spec), score)

def score_of(x):
    return keras.layers.Dense(1)(keras.layers.Flatten()(x))

def rgb(spec):
    z = keras.Input((spec.latent_dim,))
    return keras.Model(z, keras.layers.Reshape((32, 32, 3))(keras.layers.Dense(3072)(z)))
"""


@pytest.mark.parametrize(
    ("name", "words"), [("grey", "images of shape"), ("two", "scores of shape")]
)
def test_networks_of_ones_own_that_make_something_else(resources, tmp_path, name, words):
    (tmp_path / "wrong_networks.py").write_text(WRONG)
    search_in([tmp_path])
    settings = settings_of(network=f"wrong_networks:{name}")
    with pytest.raises(UserError, match=rf"network=wrong_networks:{name} .*{words}"):
        check_job(settings, resources, 1)


WRONG_LOSSES = """
import tensorflow as tf
from common.losses import Loss, Penalty

def mean(scores):
    return tf.reduce_mean(scores)

vector = Loss(mean, lambda scores: scores, mean)
broken = Loss(mean, mean, lambda scores: scores.no_such_thing)
penalty = Penalty(lambda inputs: inputs.no_such_thing)
"""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": "wrong_losses:vector"}, "the fake term of the loss has the shape"),
        ({"loss": "wrong_losses:broken"}, "no_such_thing"),
        ({"penalty": "wrong_losses:penalty", "d_gp_coe": 1.0}, "no_such_thing"),
    ],
)
def test_losses_of_ones_own_that_cannot_be_computed(resources, tmp_path, changes, words):
    (tmp_path / "wrong_losses.py").write_text(WRONG_LOSSES)
    search_in([tmp_path])
    with pytest.raises(UserError, match=rf"wrong_losses:.*cannot be used.*{words}"):
        check_job(settings_of(**changes), resources, 1)


def test_a_run_records_its_step_its_labels_and_the_files_of_ones_own(tmp_path, resources):
    settings = settings_of("labels", iteration=2)
    folder = RunFolder(tmp_path / "run")
    with folder.lock():
        run.train_job(settings, folder, resources)
    record = json.loads(folder.record_path.read_text())
    assert record["settings"] == dataclasses.asdict(settings)
    assert record["step"] == {"name": "plain", "why": "the configuration says so"}
    assert record["conditions"]["image_shape"] == [32, 32, 3]
    assert record["conditions"]["labels"]["classes"] == 10
    file = Path(__file__).parents[1] / "examples" / "own_network.py"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert record["conditions"]["own"] == {f"{OWN}:mlp": digest}
    models = open_models(folder.path, [OWN])
    assert models.classes == 10
    assert models.images(6).read([0, 5]).shape == (2, 32, 32, 3)
    record["conditions"]["own"] = {f"{OWN}:mlp": "0" * 64}
    folder.record_path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"own_network\.py is not as it was when .*run was trained"):
        fill_metrics(TrainedRun(folder.path, [OWN]), run.RunOptions(data_dir=Path("data")))


def test_a_records_own_modules_are_not_imported_unless_trusted(tmp_path, monkeypatch):
    """Neither by looking at the run nor by going on with another configuration."""
    train(tmp_path / "run", evaluate=False, iteration=2)
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "run" / "run.json"
    record = json.loads(path.read_text())
    for key in ("network", "loss", "penalty", "sn_mode", "dataset", "latents"):
        changed = {**record["settings"], key: "evil:x", "restore": False}
        path.write_text(json.dumps({**record, "settings": changed}))
        with pytest.raises(UserError, match=r"names 'evil:x'.*--trust=FOLDER/evil"):
            TrainedRun(tmp_path / "run")
        with pytest.raises(UserError, match=f"another configuration.*{key}"):
            RunFolder(tmp_path / "run").check(small_settings(VARIANTS["no_gamma_cnn"]))
    with pytest.raises(UserError, match="SystemExit: imported"):
        TrainedRun(tmp_path / "run", ["evil"])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "no_gamma_resnet" else ())
        for name in VARIANTS
    ],
)
def test_a_run_of_an_earlier_version_is_known_by_its_checkpoint_and_goes_on(tmp_path, name):
    """Its record has no choices; the variant's folder says them when it goes on."""
    step = train(tmp_path / "run", name, evaluate=False, iteration=2)
    folder = RunFolder(tmp_path / "run", defaults=VARIANTS[name].choices)
    record = folder.record
    settings = small_settings(VARIANTS[name], iteration=2)
    old = _as_earlier(record["settings"])
    folder.record_path.write_text(json.dumps({**record, "settings": old}))
    run_ = TrainedRun(tmp_path / "run")
    assert run_.settings == settings
    models = open_models(tmp_path / "run")
    for ours, theirs in zip(models.discriminator.weights, step.discriminator.weights, strict=True):
        assert ours.numpy().tolist() == theirs.numpy().tolist()
    folder.check(settings)
    with folder.lock():
        folder.begin(settings, {"host": "h"})
    assert folder.record["settings"] == dataclasses.asdict(settings)
    other = dataclasses.replace(settings, ema_decay=0.9)
    with pytest.raises(UserError, match=r"ema_decay: None -> 0\.9"):
        folder.check(other)


_EARLIER = """
dataset iteration run g_lr d_lr g_beta1 d_beta1 g_beta2 d_beta2 n_dis mg sn_mode scale d_gp_coe
batch_size d_batch_size g_batch_size num_gpus latent_dim vis_freq vis_num_h vis_num_w summary_freq
metric_freq save_checkpoint_freq extra_checkpoint_freq restore seed width precision jit_compile
expected_images expected_classes is_samples fid_samples fid_real initial_metrics
"""


def _as_earlier(values):
    """A record's settings as they were before it held choices."""
    old = {key: values[key] for key in _EARLIER.split()}
    return {**old, "scale": None} if values["gamma"] != "none" else old

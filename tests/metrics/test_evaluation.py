"""The evaluator: one pass, the right images for each metric, checked and cached."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf
from scipy.special import log_softmax, xlogy

from common.data.source import ArraySource
from common.errors import UserError
from common.metrics.errors import InvalidSamplesError, NonFiniteFeaturesError
from common.metrics.evaluation import Evaluator
from common.metrics.feature_network import FeatureNetwork
from common.metrics.generated import GeneratedImages
from common.metrics.kernel_distance import kernel_inception_distance
from common.metrics.manifold import precision_recall_density_coverage
from common.metrics.protocols import PROTOCOLS
from common.metrics.selection import select_real_images

SIZE = 6


class LinearNetwork(FeatureNetwork):
    """Features and logits are matrices times the pixels: NumPy can say what they are."""

    name = "linear"
    column_prefix = "linear_"
    input_size = SIZE
    num_features = 5
    num_classes = 4

    def __init__(self, sha256="0"):
        rng = np.random.default_rng(1)
        self.kernel = rng.normal(size=(SIZE * SIZE * 3, 9)).astype(np.float32)
        self.images_seen = []
        super().__init__(sha256, {})

    def __call__(self, images):
        self.images_seen.append(len(images))
        return super().__call__(images)

    def embed(self, images):
        output = tf.reshape(images, [-1, len(self.kernel)]) @ self.kernel
        return output[:, :5], output[:, 5:]

    def by_numpy(self, images):
        output = images.reshape(len(images), -1).astype(np.float64) @ self.kernel
        return output[:, :5], output[:, 5:]


def make_source(count=60, name="noise", shape=(SIZE, SIZE, 3), seed=2, **record):
    images = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
    return ArraySource(name, "array", images, {"seed": seed, **record})


def samples(start, count):
    """Sample i is always the same, whatever the batches."""
    rows = [
        np.random.default_rng([9, i]).uniform(-1, 1, (SIZE, SIZE, 3))
        for i in range(start, start + count)
    ]
    return tf.constant(np.array(rows), tf.float32)


def generated(generate=samples, count=200):
    return GeneratedImages("samples", lambda numbers: generate(numbers[0], len(numbers)), count)


COUNTS = {"is_samples": 83, "fid_samples": 41, "real_images": 30}


def make_evaluator(tmp_path, network=None, source=None, metrics=("is", "fid"), **options):
    changes = {name: options.pop(name) for name in (*COUNTS, "splits") if name in options}
    protocol = dataclasses.replace(PROTOCOLS["bsn"], **COUNTS | changes)
    options = {"seed": 0, "batch_size": 16, "is_cached": True, "cache_dir": tmp_path} | options
    return Evaluator(
        network or LinearNetwork(), protocol, metrics, source or make_source(), **options
    )


def expected_fid(real, fake):
    mean = real.mean(axis=0) - fake.mean(axis=0)
    a, b = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    return mean @ mean + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)


def expected_score(logits, splits):
    scores = []
    for i in range(splits):
        log_p = log_softmax(logits[i * len(logits) // splits : (i + 1) * len(logits) // splits], 1)
        p = np.exp(log_p)
        scores.append(np.exp(np.mean(np.sum(p * log_p - xlogy(p, p.mean(axis=0)), axis=1))))
    return np.mean(scores), np.std(scores)


@pytest.mark.parametrize("batch_size", [16, 83, 1, 500])
def test_values_against_numpy(tmp_path, batch_size):
    evaluator = make_evaluator(tmp_path, batch_size=batch_size)
    real = make_source().read(select_real_images(60, 30, 0)) / 127.5 - 1
    fake_features, fake_logits = evaluator.network.by_numpy(samples(0, 83).numpy())
    real_features, _ = evaluator.network.by_numpy(real)
    values = evaluator.evaluate(generated()).values
    mean, std = expected_score(fake_logits, 10)
    fid = expected_fid(real_features, fake_features[:41])
    assert list(values) == evaluator.columns
    assert evaluator.columns == [
        "linear_inception_score_mean",
        "linear_inception_score_std",
        "linear_fid",
    ]
    assert all(type(value) is float for value in values.values())
    assert list(values.values()) == pytest.approx([mean, std, fid], rel=1e-5)


def test_one_pass_in_order(tmp_path):
    evaluator = make_evaluator(tmp_path)
    evaluator.prepare()
    evaluator.network.images_seen.clear()
    asked = []
    evaluator.evaluate(
        generated(lambda start, count: asked.append((start, count)) or samples(start, count))
    )
    assert asked == [(0, 16), (16, 16), (32, 16), (48, 16), (64, 16), (80, 3)]
    assert evaluator.network.images_seen == [16, 16, 16, 16, 16, 3]
    assert evaluator.network._compiled.experimental_get_tracing_count() == 1


def test_evaluations_repeat_exactly(tmp_path):
    evaluator = make_evaluator(tmp_path)
    assert evaluator.evaluate(generated()).values == evaluator.evaluate(generated()).values


def test_more_samples_for_the_fid_than_for_the_score(tmp_path):
    evaluator = make_evaluator(tmp_path, is_samples=20, fid_samples=50)
    few = make_evaluator(tmp_path, is_samples=20, fid_samples=41).evaluate(generated()).values
    values = evaluator.evaluate(generated()).values
    assert values["linear_inception_score_mean"] == few["linear_inception_score_mean"]
    assert values["linear_fid"] != few["linear_fid"]


def test_metrics_can_be_chosen(tmp_path):
    evaluator = make_evaluator(tmp_path, metrics=["fid"])
    assert evaluator.columns == ["linear_fid"] == list(evaluator.evaluate(generated()).values)
    everything = make_evaluator(tmp_path, metrics=["fid", "is"])
    assert everything.columns == make_evaluator(tmp_path).columns
    with pytest.raises(UserError, match=r"metric='lpips'.*is, fid, kid, prdc"):
        make_evaluator(tmp_path, metrics=["lpips"])


def test_metrics_of_features_against_the_functions(tmp_path):
    """KID and PRDC see the same features as the FID, in the order of the table."""
    evaluator = make_evaluator(tmp_path, metrics=["prdc", "is", "kid", "fid"])
    plain = make_evaluator(tmp_path).evaluate(generated()).values
    evaluation = evaluator.evaluate(generated())
    real, _ = evaluator.network(
        tf.constant(make_source().read(select_real_images(60, 30, 0)) / 127.5 - 1, tf.float32)
    )
    fake, _ = evaluator.network(samples(0, 41))
    expected = kernel_inception_distance(real.numpy(), fake.numpy(), seed=0)
    expected |= precision_recall_density_coverage(real.numpy(), fake.numpy())
    names = ["kid_mean", "kid_std", "precision", "recall", "density", "coverage"]
    assert evaluator.columns == list(evaluation.values)
    assert evaluator.columns == [*plain, *(f"linear_{name}" for name in names)]
    for name in plain:
        assert evaluation.values[name] == pytest.approx(plain[name], rel=1e-12)
    for name in names:
        assert evaluation.values[f"linear_{name}"] == pytest.approx(expected[name], rel=1e-5)
    assert evaluation.record["details"]["kid_subset_size"] == 30


def test_real_features_are_cached_like_the_statistics(tmp_path):
    everything = ["is", "fid", "kid", "prdc"]
    values = make_evaluator(tmp_path, metrics=everything).evaluate(generated()).values
    source = untouchable()
    again = make_evaluator(tmp_path, source=source, metrics=everything)
    assert again.evaluate(generated()).values == values
    assert len(list((tmp_path / "fid_statistics").iterdir())) == 2


def test_the_record_says_how_the_values_came_about(tmp_path):
    evaluator = make_evaluator(tmp_path, seed=7, metrics=["is", "fid"])
    record = evaluator.evaluate(generated()).record
    assert json.loads(json.dumps(record)) == record
    assert record["network"]["sha256"] == "0"
    assert record["network"]["resize"] == "TF1 bilinear to 6x6"
    assert set(record["network"]["versions"]) == {"python", "tensorflow", "keras", "numpy", "scipy"}
    assert record["real"]["selection"] == {
        "total": 60, "count": 30, "run_seed": 7, "replacement": False,
    }  # fmt: skip
    counts = {name: record[name] for name in ("is_samples", "fid_samples", "splits", "seed")}
    assert counts == {"is_samples": 83, "fid_samples": 41, "splits": 10, "seed": 7}
    assert record["seconds"] > 0
    assert record["details"]["fid_standard_error"] > 0


def test_real_images_are_read_only_if_needed(tmp_path):
    source = untouchable()
    evaluator = make_evaluator(tmp_path, source=source, metrics=["is"])
    evaluator.prepare()
    assert len(evaluator.evaluate(generated()).values) == 2


# Samples


def spoiled(value, *bad):
    def generate(start, count):
        images = samples(start, count).numpy()
        for index in bad:
            if start <= index < start + count:
                images[index - start, 0, 1, 2] = value
        return tf.constant(images)

    return generate


ABOVE_ONE = np.nextafter(np.float32(1), np.float32(2))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, ABOVE_ONE, -ABOVE_ONE, 2])
def test_invalid_samples_are_named(tmp_path, value):
    evaluator = make_evaluator(tmp_path)
    with pytest.raises(InvalidSamplesError, match="samples 21 to 22 hold"):
        evaluator.evaluate(generated(spoiled(value, 21, 22, 24, 70)))
    with pytest.raises(InvalidSamplesError, match="samples 82 to 82 hold"):
        evaluator.evaluate(generated(spoiled(value, 82)))


def test_bounds_themselves_are_valid(tmp_path):
    evaluator = make_evaluator(tmp_path)
    assert np.isfinite(list(evaluator.evaluate(generated(spoiled(1, 3))).values.values())).all()
    assert np.isfinite(list(evaluator.evaluate(generated(spoiled(-1, 3))).values.values())).all()


def test_samples_of_another_shape(tmp_path):
    for wrong in (
        lambda start, count: samples(start, count + 1),
        lambda start, count: samples(start, count)[..., :1],
    ):
        with pytest.raises(UserError, match=r"shape \(.*instead of \(16, None, None, 3\)"):
            make_evaluator(tmp_path).evaluate(generated(wrong))


@pytest.mark.parametrize(("column", "what"), [(0, "features"), (8, "logits")])
def test_non_finite_outputs_of_the_network(tmp_path, column, what):
    make_evaluator(tmp_path).prepare()  # caches finite statistics of the real images
    network = LinearNetwork()
    network.kernel[0, column] = np.inf
    with pytest.raises(NonFiniteFeaturesError, match=what):
        make_evaluator(tmp_path, network).evaluate(generated())
    with pytest.raises(NonFiniteFeaturesError, match=what):
        make_evaluator(
            tmp_path, metrics=["kid"] if what == "features" else ["is"], network=network
        ).evaluate(generated())
    if what == "features":
        with pytest.raises(NonFiniteFeaturesError):
            make_evaluator(tmp_path / "other", network).prepare()


# Real images


def test_selection_of_real_images():
    chosen = select_real_images(50_000, 5_000, 3)
    assert chosen.dtype == np.int64
    assert len(np.unique(chosen)) == 5_000
    assert 0 <= chosen.min() < chosen.max() < 50_000
    assert abs(chosen.mean() - 25_000) < 1_000
    np.testing.assert_array_equal(chosen, select_real_images(50_000, 5_000, 3))
    assert not np.array_equal(chosen, select_real_images(50_000, 5_000, 4))
    np.testing.assert_array_equal(select_real_images(9, 9, 0), np.arange(9))
    np.testing.assert_array_equal(select_real_images(7, 9, 0), np.arange(7))


def test_selection_does_not_depend_on_global_seeds():
    keras.utils.set_random_seed(0)
    chosen = select_real_images(100, 10, 3)
    keras.utils.set_random_seed(1)
    np.testing.assert_array_equal(chosen, select_real_images(100, 10, 3))


class Untouchable(ArraySource):
    def read(self, indices):
        raise AssertionError("read although cached")


def untouchable():
    """A source whose images cannot be read any more once its record is known."""
    source = make_source()
    assert source.record["seed"] == 2
    source.__class__ = Untouchable
    return source


def test_real_statistics_are_reused(tmp_path):
    first = make_evaluator(tmp_path)
    values = first.evaluate(generated()).values
    source = untouchable()
    assert make_evaluator(tmp_path, source=source).evaluate(generated()).values == values


# Described as the others are.
OTHER_PIXELS = ArraySource("noise", "array", 255 - make_source().read(np.arange(60)), {"seed": 2})


@pytest.mark.parametrize(
    "change",
    [
        {"network": LinearNetwork("1")},
        {"source": make_source(origin="elsewhere")},
        {"source": make_source(name="other")},
        {"source": OTHER_PIXELS},
        {"seed": 1},
        {"real_images": 29},
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_real_statistics_depend_on_everything(tmp_path, change):
    make_evaluator(tmp_path).prepare()
    make_evaluator(tmp_path, **change).prepare()
    assert len(list((tmp_path / "fid_statistics").iterdir())) == 2


def test_seed_does_not_matter_when_all_images_are_used(tmp_path):
    for seed in (0, 1):
        make_evaluator(tmp_path, seed=seed, real_images=60).prepare()
    assert len(list((tmp_path / "fid_statistics").iterdir())) == 1


def test_damaged_statistics_are_computed_again(tmp_path, caplog):
    values = make_evaluator(tmp_path).evaluate(generated()).values
    (path,) = (tmp_path / "fid_statistics").iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    assert make_evaluator(tmp_path).evaluate(generated()).values == values
    assert "damaged" in caplog.text


def test_names_of_data_sets_stay_in_the_folder(tmp_path):
    make_evaluator(tmp_path, source=make_source(name="../../a b")).prepare()
    (path,) = (tmp_path / "fid_statistics").iterdir()
    assert path.name.startswith("_a_b-linear-")


def test_record_is_json(tmp_path):
    record = make_evaluator(tmp_path).record
    assert json.loads(json.dumps(record)) == record
    assert record["real"]["selection"]["run_seed"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"is_samples": 9}, "9 samples in 10 splits"),
        ({"splits": 0}, "in 0 splits"),
        ({"fid_samples": 1}, "fid of 1 samples .* at least 2"),
        ({"real_images": 1}, "1 real images: at least 2"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"metrics": ["prdc"], "fid_samples": 5}, "precision.*at least 6"),
        ({"metrics": ["prdc"], "real_images": 5}, "precision.*at least 6"),
        ({"metrics": ["prdc"], "source": make_source(5)}, "precision.*at least 6"),
        ({"source": make_source(1)}, "1 real images"),
        ({"source": make_source(shape=(SIZE, SIZE, 1))}, "3 colours"),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_senseless_choices(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        make_evaluator(tmp_path, **options)


def test_imagenets_real_images_are_drawn_with_replacement():
    few = select_real_images(10, 1000, 1, with_replacement=True)
    assert len(few) == 1000
    counts = np.bincount(few, minlength=10)
    assert counts.min() > 50
    many = select_real_images(1_000_000, 5_000, 1, with_replacement=True)
    # The expected number of repeats among 5,000 draws from a million is 12.5.
    assert 0 < 5_000 - len(np.unique(many)) < 40

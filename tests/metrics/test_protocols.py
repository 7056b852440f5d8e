"""The protocols on a small graph of Inception's form, each computed anew in NumPy and SciPy."""

import dataclasses

import cv2
import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf
from PIL import Image
from scipy.special import log_softmax, xlogy

from common.data import ArraySource
from common.errors import UserError
from common.metrics.digits import DigitsNetwork, build_classifier, model_weights
from common.metrics.evaluation import Evaluator
from common.metrics.frechet import GaussianStatistics
from common.metrics.generated import GeneratedImages
from common.metrics.inception import InceptionNetwork
from common.metrics.protocols import PROTOCOLS
from tests.metrics.graphs import run_untouched, small_inception
from tests.metrics.test_feature_network import resize_by_numpy

SIZE = 16
FEATURES = 48


def decisive_graph():
    """The small graph with larger weights before the logits, lest all images score alike."""
    graph = small_inception(features=FEATURES)
    (weights,) = [node for node in graph.node if node.name == "softmax/weights"]
    larger = tf.make_ndarray(weights.attr["value"].tensor) * 20
    weights.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(larger))
    return graph


GRAPH = decisive_graph()


class SmallInception(InceptionNetwork):
    num_features = FEATURES


@pytest.fixture(scope="module")
def network():
    return SmallInception.from_graph(GRAPH.SerializeToString(), {})


def smooth(count, seed):
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-1, 1, (count, 4, 4, 3)).astype(np.float32)
    fine = np.stack([cv2.resize(image, (SIZE, SIZE)) for image in coarse])
    return np.clip(fine * rng.uniform(0.2, 1.2, (count, 1, 1, 1)), -1, 1).astype(np.float32)


FAKE = smooth(23, 1)
REAL = ((smooth(17, 2) + 1) * 127.5).astype(np.uint8)


def fakes():
    return GeneratedImages("fakes", lambda numbers: FAKE[numbers], 23, {"of": "test"})


def reals():
    return ArraySource("reals", "array", REAL, {"dataset": "reals"})


def evaluator_of(network, protocol, metrics, reference=None, **options):
    return Evaluator(network, PROTOCOLS[protocol], metrics, reference, **options)


def compare(network, protocol, metrics, samples, reference=None):
    return evaluator_of(network, protocol, metrics, reference).evaluate(samples)


def pil(images):
    return np.stack([np.asarray(Image.fromarray(i).resize((299, 299), 3)) for i in images])


def half_pixel(images):
    return np.stack([cv2.resize(image.astype(np.float32), (299, 299)) for image in images])


def tf1(images):
    return resize_by_numpy(images.astype(np.float64), 299)


def rounded(images):
    return np.rint((images + 1) * 127.5).astype(np.uint8)


def truncated(images):
    return np.minimum(np.floor(images * 127.5 + 128), 255).astype(np.uint8)


# For each protocol, by its description: pixels, the score's and the distances' resize, the scale.
BY_HAND = {
    "bsn": (lambda x: x * 127.5 + 127.5, tf1, tf1, 127.5),
    "mmgen": (truncated, pil, tf1, 128),
    "studiogan": (rounded, half_pixel, half_pixel, 127.5),
    "torch_fidelity": (rounded, tf1, tf1, 128),
}  # fmt: skip


def through_session(images, resize, centre):
    """Features, all logits and logits without bias."""
    prepared = ((resize(images).astype(np.float64) - centre) / centre).astype(np.float32)
    pooled, logits = run_untouched(GRAPH, prepared)
    bias = next(n for n in GRAPH.node if n.name == "biases").attr["value"].tensor
    return pooled[:, 0, 0].astype(np.float64), logits, logits - tf.make_ndarray(bias)


def expected_score(logits, splits, ddof):
    scores = []
    for i in range(splits):
        part = logits[i * len(logits) // splits : (i + 1) * len(logits) // splits]
        log_p = log_softmax(part.astype(np.float64), 1)
        p = np.exp(log_p)
        scores.append(np.exp(np.mean(np.sum(p * log_p - xlogy(p, p.mean(axis=0)), axis=1))))
    return np.mean(scores), np.std(scores, ddof=ddof) if splits > ddof else np.nan


def expected_fid(real, fake, unrooted_below):
    """Fewer images than features: by the singular values of the centred features' product."""
    a, b = ((x - x.mean(axis=0)) / np.sqrt(len(x) - 1) for x in (real, fake))
    difference = real.mean(axis=0) - fake.mean(axis=0)
    singular = scipy.linalg.svdvals(a @ b.T)
    root = np.where(singular**2 < unrooted_below, singular**2, singular).sum()
    return difference @ difference + (a**2).sum() + (b**2).sum() - 2 * root


@pytest.mark.filterwarnings("ignore:Matrix is singular")
@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_against_their_descriptions(network, name):
    evaluation = compare(network, name, ["is", "fid"], fakes(), reals())
    pixels, score_resize, distance_resize, centre = BY_HAND[name]
    levels = pixels(FAKE.astype(np.float64) if name == "bsn" else FAKE)
    _, logits, unbiased = through_session(levels, score_resize, centre)
    fake, _, _ = through_session(levels, distance_resize, centre)
    real, _, _ = through_session(REAL, distance_resize, centre)
    chosen = {
        "bsn": logits[:, :1000],
        "mmgen": unbiased,
        "studiogan": logits,
        "torch_fidelity": unbiased[np.random.RandomState(2020).permutation(23)],
    }[name]
    mean, std = expected_score(chosen, *((1, 1) if name == "studiogan" else (10, 0)))
    values = evaluation.values
    assert list(values) == ["inception_score_mean", "inception_score_std", "fid"]
    assert values["inception_score_mean"] == pytest.approx(mean, rel=1e-4)
    assert values["inception_score_std"] == pytest.approx(std, rel=1e-3, nan_ok=True)
    expected = expected_fid(real, fake, unrooted_below=1e-10 if name == "bsn" else 0)
    assert values["fid"] == pytest.approx(expected, rel=1e-3)
    usual = dataclasses.asdict(PROTOCOLS["bsn"])
    said = usual | evaluation.record.get("protocol", {})
    wanted = dataclasses.asdict(PROTOCOLS[name])
    counts = ("is_samples", "fid_samples", "real_images", "splits")
    assert {k: v for k, v in said.items() if k not in counts} == {
        k: v for k, v in wanted.items() if k not in counts
    }
    record = evaluation.record
    assert (record["is_samples"], record["real"]["selection"]["count"]) == (23, 17)
    assert record["splits"] == PROTOCOLS[name].splits


def test_protocols_differ(network):
    scores = {
        name: compare(network, name, ["is"], fakes()).values["inception_score_mean"]
        for name in PROTOCOLS
    }
    assert len({round(score, 4) for score in scores.values()}) == 4


@pytest.mark.parametrize("with_bias", [True, False])
def test_bsn_is_what_training_measures(network, tmp_path, with_bias):
    """With a file whose own logits have the bias, and with one whose have not."""
    network = network.with_logits(SmallInception.num_classes, with_bias)
    counts = {"is_samples": 23, "fid_samples": 23, "real_images": 5_000}
    everything = ["is", "fid", "kid", "prdc"]
    evaluator = Evaluator(
        network, dataclasses.replace(PROTOCOLS["bsn"], **counts), everything, reals(),
        seed=5, is_cached=True, cache_dir=tmp_path,
    )  # fmt: skip
    expected = evaluator.evaluate(fakes()).values
    found = evaluator_of(network, "bsn", everything, reals(), seed=5, batch_size=64)
    found = found.evaluate(fakes())
    assert found.values == expected
    assert list(expected) == list(evaluator.columns)
    logits = f"the first 1000 of 1008, {'with' if with_bias else 'without'} bias"
    assert found.record["network"]["logits"] == logits
    assert evaluator.conditions["network"]["logits"] == logits


def test_stored_statistics_give_the_same_distance(network):
    statistics = evaluator_of(network, "bsn", ()).statistics(reals())
    assert statistics.count == 17
    expected = compare(network, "bsn", ["fid"], fakes(), reals()).values["fid"]
    found = compare(network, "bsn", ["fid"], fakes(), statistics)
    assert found.values["fid"] == pytest.approx(expected)
    assert found.record["real"] == {"statistics_of": 17}


def test_real_images_are_drawn_with_replacement_only_where_that_is_asked_for(network):
    """A protocol that takes the whole set takes each image once, whatever is asked for."""
    whole = compare(network, "bsn", ["fid"], fakes(), reals()).values["fid"]
    drawn = evaluator_of(network, "bsn", ["fid"], reals(), with_replacement=True)
    assert drawn.evaluate(fakes()).values["fid"] != pytest.approx(whole)
    assert drawn.record["real"]["selection"] == {
        "total": 17, "count": 5_000, "run_seed": 0, "replacement": True,
    }  # fmt: skip
    each = evaluator_of(network, "studiogan", ["fid"], reals(), with_replacement=True)
    assert each.record["real"]["selection"] == {"total": 17, "count": 17}


@pytest.mark.parametrize(
    ("metrics", "reference", "message"),
    [
        (["fid"], None, "fid cannot be computed against nothing"),
        (["is", "kid"], GaussianStatistics(np.zeros(9), np.eye(9), 9), "kid.*statistics"),
        (["fid"], GaussianStatistics(np.zeros(3), np.eye(3), 9), "3 features.*has 48"),
    ],
    ids=str,
)
def test_what_cannot_be_compared(network, metrics, reference, message):
    with pytest.raises(UserError, match=message):
        compare(network, "bsn", metrics, fakes(), reference)


class Unread(ArraySource):
    def read(self, indices):
        raise AssertionError("read although too few")


@pytest.mark.parametrize(
    ("metrics", "count", "message"),
    [(["prdc"], 5, "at least 6"), (["fid"], 1, "at least 2"), (["kid"], 1, "at least 2")],
)
def test_too_few_images_are_found_before_they_are_read(network, metrics, count, message):
    few = Unread("few", "array", REAL[:count], {})
    with pytest.raises(UserError, match=message):
        compare(network, "bsn", metrics, fakes(), few)


def test_digits_know_one_protocol():
    digits = DigitsNetwork(model_weights(build_classifier()), {})
    values = compare(digits, "bsn", ["is"], fakes()).values
    assert list(values) == ["digits_inception_score_mean", "digits_inception_score_std"]
    with pytest.raises(UserError, match="no protocol but bsn"):
        evaluator_of(digits, "mmgen", ["is"])


@pytest.mark.parametrize("value", [np.nan, 1.5])
def test_generated_images_are_checked(network, value):
    spoiled = np.full((13, 8, 8, 3), value, np.float32)
    images = GeneratedImages("bad", lambda numbers: spoiled, 13)
    with pytest.raises(UserError, match="samples 0 to 12 hold NaN or values outside"):
        compare(network, "mmgen", ["is"], images)


MIXED = dataclasses.replace(PROTOCOLS["mmgen"], any_network=True, pixels="unrounded")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels": "dithered"}, "pixels='dithered': the value must be one of unrounded"),
        ({"score_resize": "nearest"}, "resize='nearest': the value must be one of"),
        ({"distance_resize": "nearest"}, "resize='nearest': the value must be one of"),
        ({"distance": "city block"}, "distance='city block': the value must be one of"),
    ],
    ids=str,
)
def test_a_protocol_of_unknown_parts_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(PROTOCOLS["bsn"], **change)


def test_floats_are_not_resized_by_pil(network):
    with pytest.raises(UserError, match="PIL bicubic resizes uint8 images"):
        Evaluator(network, MIXED, ["is"]).evaluate(fakes())


def test_real_statistics_of_other_protocols_are_cached_apart(network, tmp_path):
    """They depend on the scale of the pixels, and on a resize that is not the network's."""
    for name in ("bsn", "torch_fidelity", "mmgen"):
        Evaluator(
            network, PROTOCOLS[name], ["fid"], reals(), is_cached=True, cache_dir=tmp_path
        ).prepare()
    assert len(list((tmp_path / "fid_statistics").iterdir())) == 2  # the last two are alike here

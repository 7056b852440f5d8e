"""The rows of metrics and feature networks, and a user's own by import path."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.data import ArraySource
from common.errors import UserError
from common.metrics import (
    FEATURE_NETWORKS,
    METRICS,
    PROTOCOLS,
    Metric,
    chosen_metrics,
    open_network,
    parse_metrics,
)
from common.metrics.digits import DigitsNetwork
from common.metrics.evaluation import Evaluator
from common.metrics.generated import GeneratedImages
from common.metrics.inception import InceptionNetwork
from tests.metrics.test_evaluation import LinearNetwork, generated, make_evaluator, samples

OWN = '''
"""A metric in one file: how far apart the samples' features are, and the real images' as well."""

import numpy as np

from common.metrics import Metric, StreamingMetric


def spread(seed, real, fake):
    assert real is None
    return {"diversity": np.var(fake, axis=0).sum(), "diversity_of": len(fake)}


def ratio(seed, real, fake):
    return {"spread_ratio": np.var(fake, axis=0).sum() / np.var(real, axis=0).sum()}


class Largest(StreamingMetric):
    def __init__(self, inputs):
        self.num_samples = inputs.num_samples
        self._largest = -np.inf

    def update(self, features, logits):
        self._largest = max(self._largest, float(logits.max(initial=self._largest)))

    def result(self):
        return {"largest_logit": self._largest}


diversity = Metric(columns=("diversity",), compare=spread, reference="none")
spread_ratio = Metric(columns=("spread_ratio",), compare=ratio)
largest = Metric(columns=("largest_logit",), stream=Largest, reads="logits", reference="none")
second_fid = Metric(columns=("fid",), compare=ratio)
forgetful = Metric(columns=("promised",), compare=ratio)
not_a_row = 3
'''


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_metrics_of_a_test.py").write_text(OWN)
    sys.path.append(str(folder))
    yield "own_metrics_of_a_test"
    sys.path.remove(str(folder))


def test_metrics_of_ones_own_by_import_path(own, tmp_path):
    names = [f"{own}:largest", f"{own}:spread_ratio", "fid", f"{own}:diversity"]
    evaluator = make_evaluator(tmp_path, metrics=names)
    evaluation = evaluator.evaluate(generated())
    assert list(evaluation.values) == evaluator.columns == [
        "linear_fid", "linear_largest_logit", "linear_spread_ratio", "linear_diversity"
    ]  # fmt: skip
    network = LinearNetwork()
    features, logits = network.by_numpy(samples(0, 83).numpy())
    fake = np.var(features[:41], axis=0).sum()
    found = evaluation.values
    assert found["linear_diversity"] == pytest.approx(fake, rel=1e-5)
    assert found["linear_largest_logit"] == pytest.approx(logits.max(), rel=1e-5)
    only = make_evaluator(tmp_path, metrics=["fid"]).evaluate(generated())
    assert found["linear_fid"] == pytest.approx(only.values["linear_fid"], rel=1e-12)
    assert evaluation.record["details"]["diversity_of"] == 41
    assert evaluator.conditions["own_metrics"] == [n for n in names if ":" in n]


def test_a_metric_without_real_images_needs_no_reference(own):
    evaluator = Evaluator(LinearNetwork(), PROTOCOLS["bsn"], [f"{own}:diversity"])
    found = evaluator.evaluate(generated(count=20)).values["linear_diversity"]
    features, _ = LinearNetwork().by_numpy(samples(0, 20).numpy())
    assert found == pytest.approx(np.var(features, axis=0).sum(), rel=1e-5)
    with pytest.raises(UserError, match="spread_ratio cannot be computed against nothing"):
        Evaluator(LinearNetwork(), PROTOCOLS["bsn"], [f"{own}:spread_ratio"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{own}:missing", "has no 'missing'"),
        ("{own}:not_a_row", "a int, where a common.metrics.metric.Metric is needed"),
        ("no_such_module_at_all:x", "cannot be imported"),
        ("diversity", "metric='diversity': the value must be one of is, fid, kid, prdc"),
        ("fid,{own}:second_fid", "the column fid would be there twice"),
        ("", "metric='': the value must be one of"),
    ],
)
def test_what_is_no_metric_is_named(own, name, message):
    with pytest.raises(UserError, match=message):
        parse_metrics(name.format(own=own))


def test_a_metric_that_gives_not_what_it_declares(own, tmp_path):
    evaluator = make_evaluator(tmp_path, metrics=[f"{own}:forgetful"])
    with pytest.raises(
        UserError, match="forgetful gave no number for each of its columns promised"
    ):
        evaluator.evaluate(generated())


def nothing(*arguments):
    return {}


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"columns": "fid", "compare": nothing}, "tuple of names"),
        ({"columns": (), "compare": nothing}, "one or more"),
        ({"columns": ("a", "a"), "compare": nothing}, "different"),
        ({"columns": ("a",)}, "either"),
        ({"columns": ("a",), "compare": nothing, "stream": nothing}, "either"),
        ({"columns": ("a",), "compare": nothing, "reads": "logits"}, "reads features"),
        ({"columns": ("a",), "stream": nothing}, "statistics"),
    ],
    ids=range(7),
)
def test_rows_that_contradict_themselves(facts, message):
    with pytest.raises(ValueError, match=message):
        Metric(**facts)


def test_the_order_is_that_of_the_table():
    assert parse_metrics("none") == ()
    assert list(chosen_metrics(["prdc", "is", "fid", "is"])) == ["is", "fid", "prdc"]


def test_rows_say_what_the_functions_return(tmp_path):
    values = make_evaluator(tmp_path, metrics=list(METRICS)).evaluate(generated()).values
    columns = [column for row in METRICS.values() for column in row.columns]
    assert list(values) == [f"linear_{column}" for column in columns]
    for name, network in (("inception", InceptionNetwork), ("digits", DigitsNetwork)):
        assert FEATURE_NETWORKS[name].column_prefix == network.column_prefix
        assert network.name == name


def test_a_feature_network_of_ones_own(own, tmp_path, monkeypatch):
    """Its row's function is given the files; other protocols than bsn are not for it."""
    text = (
        "from common.metrics import FeatureNetworkRow\n"
        "from tests.metrics.test_evaluation import LinearNetwork\n"
        "linear = FeatureNetworkRow(open=lambda files: LinearNetwork(files.sha256), "
        "column_prefix='linear_')\n"
    )
    (tmp_path / "own_network_of_a_test.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    network = open_network("own_network_of_a_test:linear", inception_sha256="7")
    assert network.provenance["sha256"] == "7"
    images = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3), np.uint8)
    source = ArraySource("a", "array", images, {})
    values = Evaluator(network, PROTOCOLS["bsn"], ["is"]).evaluate(source).values
    assert list(values) == ["linear_inception_score_mean", "linear_inception_score_std"]
    with pytest.raises(UserError, match="linear knows no protocol but bsn"):
        Evaluator(network, PROTOCOLS["mmgen"], ["is"])


def test_a_conditional_generators_images_are_a_function_of_their_numbers():
    """Labels are drawn by number, as latents are: batches change nothing."""
    labels = np.arange(30) % 3
    protocol = dataclasses.replace(PROTOCOLS["bsn"], splits=3)

    def generate(numbers):
        base = np.stack([samples(int(n), 1).numpy()[0] for n in numbers])
        return base * (labels[numbers] / 2)[:, None, None, None]

    found = [
        Evaluator(LinearNetwork(), protocol, ["is"], batch_size=size)
        .evaluate(GeneratedImages("labelled", generate, 30))
        .values["linear_inception_score_mean"]
        for size in (7, 30)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_the_rows_need_no_tensorflow():
    code = (
        "import sys, common.metrics as m; list(m.METRICS.values()); m.PROTOCOLS['mmgen']; "
        "m.FEATURE_NETWORKS['inception']; m.parse_metrics('is,kid'); "
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)

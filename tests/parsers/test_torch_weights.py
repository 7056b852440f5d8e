"""Files of PyTorch weights: both forms, the network of them, and files that are hostile."""

import contextlib
import os
import pickle
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.metrics import inception
from common.parsers.torch_weights import read_state_dict
from tests.metrics.graphs import FullInception, run_untouched
from tests.metrics.torch_files import dictionary, stream_file, tensor, text, zip_file

FORMS = {"zip": zip_file, "stream": stream_file}


def arrays():
    rng = np.random.default_rng(0)
    return {
        "conv.weight": rng.normal(size=(4, 3, 2, 2)).astype(np.float32),
        "conv.transposed": rng.normal(size=(2, 5)).astype(np.float32).T,
        "bn.running_var": rng.uniform(size=7),
        "bn.num_batches_tracked": np.array(3),
        "empty": np.zeros((0, 3), np.float32),
    }


@pytest.mark.parametrize("form", FORMS)
def test_arrays_come_out_as_they_went_in(form):
    expected = arrays()
    read = read_state_dict(FORMS[form](expected))
    assert list(read) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(read[name], value)
        assert read[name].dtype == value.dtype
        assert read[name].flags.owndata


def test_part_of_a_storage():
    stored = np.arange(24, dtype=np.float32)
    pickled = dictionary({"part": tensor(stored, "0", offset=3, size=[2, 3], stride=[8, 2])})
    read = read_state_dict(zip_file({"0": stored}, pickled))
    np.testing.assert_array_equal(read["part"], [[3, 5, 7], [11, 13, 15]])


# The network


@pytest.fixture(scope="module")
def full():
    return FullInception(3)


def test_network_of_torch_weights_equals_the_graph(full, tmp_path):
    """The same numbers as a frozen graph of 2015, whose layers are Inception's own."""
    images = np.random.default_rng(1).uniform(-1, 1, (2, 299, 299, 3)).astype(np.float32)
    pooled, logits = run_untouched(full.graph, images)
    path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    path.write_bytes(stream_file(full.weights))
    network = inception.open_inception(path, tmp_path)
    features, classes = network(tf.constant(images))
    assert pooled.std() > 0.01
    scale = np.abs(pooled).max()
    np.testing.assert_allclose(features, pooled[:, 0, 0], atol=1e-5 * scale)
    unbiased = pooled[:, 0, 0] @ full.weights["fc.weight"].T
    scale = np.abs(logits).max()
    np.testing.assert_allclose(classes, unbiased[:, :1000], atol=1e-5 * scale)
    for with_bias, expected in ((True, logits), (False, unbiased)):
        _, other = network.with_logits(1008, with_bias)(tf.constant(images))
        np.testing.assert_allclose(other, expected, atol=1e-5 * scale)
    assert list(network.provenance["files"]) == [path.name]


def without(name):
    return lambda weights: weights.pop(name)


def reshaped(weights):
    weights["Mixed_6b.branch7x7_2.conv.weight"] = np.zeros((128, 64, 1, 7), np.float32)


def not_finite(weights):
    weights["fc.bias"] = np.full(1008, np.nan, np.float32)


def misfit(weights):
    weights["Conv2d_1a_3x3.bn.bias"] = np.zeros(5, np.float32)


def negative(weights):
    weights["Conv2d_1a_3x3.bn.running_var"] = np.full(32, -1, np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("fc.weight"), "no array fc.weight"),
        (without("Mixed_7c.branch3x3dbl_3b.conv.weight"), "no array Mixed_7c.branch3x3dbl_3b"),
        (reshaped, "branch7x7_2 takes 64 channels instead of 128"),
        (not_finite, "fc.bias"),
        (misfit, "Conv2d_1a_3x3 do not fit"),
        (negative, "running_var is negative"),
    ],
)
def test_weights_of_something_else(full, change, message):
    weights = dict(full.weights)
    change(weights)
    with pytest.raises(UserError, match=message):
        inception.InceptionNetwork.from_torch(zip_file(weights), {})


# Hostile files

ONE = {"0": np.arange(4, dtype=np.float32)}


def with_tensor(**changes):
    return dictionary({"x": tensor(ONE["0"], "0", **changes)})


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


HOSTILE = {
    "call": (dictionary({"x": b"cposix\nsystem\n" + text("ls") + b"\x85R"}), "posix.system"),
    "beyond the storage": (with_tensor(size=[5], stride=[1]), "exceeds"),
    "offset": (with_tensor(offset=1), "exceeds"),
    "negative": (with_tensor(stride=[-1]), "impossible"),
    "strides": (with_tensor(size=[2], stride=[1, 1]), "impossible"),
    "expanded": (with_tensor(size=[2**30, 2**9], stride=[0, 0]), "exceeds"),
    "many dimensions": (with_tensor(size=[1] * 9, stride=[1] * 9), "impossible"),
    "wrong type": (with_tensor(storage="DoubleStorage"), "bytes instead of|truncated"),
    "unknown type": (with_tensor(storage="QInt8Storage"), "QInt8Storage"),
    "other storage": (dictionary({"x": tensor(ONE["0"], "9")}), "missing"),
    "number": (dictionary({"x": b"K\x01"}), "not a tensor"),
    "no dictionary": (b"\x80\x02].", "not a dictionary"),
    "number as name": (b"\x80\x02}K\x01K\x01s.", "key of type int"),
    "no pickle": (b"nonsense", "damaged"),
    "full dictionary": (b"\x80\x02ccollections\nOrderedDict\n(K\x01tR.", "not empty"),
    "wrapped without end": (
        b"\x80\x02}" + text("x") + b"ctorch._utils\n_rebuild_parameter\nq\x00"
        + b"h\x00" * 1999 + b"N" + b"\x85R" * 2000 + b"s.", "not a tensor|damaged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused(form, name):
    pickled, message = HOSTILE[name]
    with pytest.raises(UserError, match=message):
        read_state_dict(FORMS[form](ONE, pickled))


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_executed(form, tmp_path):
    pickled = pickle.dumps({"x": Touch(str(tmp_path / "touched"))}, protocol=2)
    with pytest.raises(UserError, match="mkdir"):
        read_state_dict(FORMS[form](ONE, pickled))
    assert not list(tmp_path.iterdir())


def big_endian():
    return stream_file(ONE, system={"little_endian": False})


OTHER_FILES = {
    "compressed": (zip_file(ONE, compression=zipfile.ZIP_DEFLATED), "not one of torch.save"),
    "two pickles": (zip_file(ONE, extra=[("b/data.pkl", b"x")]), "not one of torch.save"),
    "no zip": (b"PK\x03\x04" + bytes(100), "damaged"),
    "big-endian": (big_endian(), "little-endian"),
    "truncated": (stream_file(ONE)[:-1], "truncated"),
    "truncated zip": (zip_file(ONE)[:-40], "damaged"),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_other_files_are_refused(name):
    data, message = OTHER_FILES[name]
    with pytest.raises(UserError, match=message):
        read_state_dict(data)


@settings(max_examples=150, deadline=None)
@given(
    form=st.sampled_from(list(FORMS)),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=9),
)
def test_damaged_bytes_never_raise_anything_else(form, changes):
    data = bytearray(FORMS[form](arrays()))
    for position, value in changes:
        data[position % len(data)] = value
    with contextlib.suppress(UserError):
        read_state_dict(bytes(data))

"""The frozen graph: rewriting against a Session, its sources, hostile files."""

import gzip
import hashlib
import json
import tarfile

import cv2
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import graph_pb2

from common.errors import UserError
from common.metrics import download, inception, open_network
from common.metrics.feature_network import resize_bilinear
from common.parsers import frozen_graph
from tests.metrics.graphs import FLOAT, MEMBER, GraphOf2015, run_untouched, small_inception, tar_gz
from tests.metrics.servers import serve
from tests.metrics.test_feature_network import resize_by_numpy


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory):
    """A cache of the tests' own where none is named."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        yield


@pytest.fixture(scope="module")
def graph():
    return small_inception()


@pytest.fixture(scope="module")
def graph_bytes(graph):
    return graph.SerializeToString()


@pytest.fixture(scope="module")
def archive(graph_bytes, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / inception.ARCHIVE_NAME
    path.write_bytes(tar_gz([("LICENSE", b"text"), (MEMBER, graph_bytes), ("other.pb", b"x")]))
    return path


@pytest.fixture(scope="module")
def network(archive):
    return open_network("inception", inception_path=archive)


def images_of(count, size, seed=3):
    return np.random.default_rng(seed).uniform(-1, 1, (count, size, size, 3)).astype(np.float32)


def assert_relative(actual, expected, tolerance=1e-5):
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("count", [1, 3])
def test_rewritten_function_equals_the_session(graph, network, count):
    images = images_of(count, 299)
    pooled, logits = run_untouched(graph, images)
    features, classes = network(tf.constant(images))
    assert pooled.shape == (count, 1, 1, 2048)
    assert logits.shape == (count, 1008)
    assert pooled.std() > 0.05  # the comparison would mean nothing on constants
    assert_relative(features.numpy(), pooled[:, 0, 0])
    assert_relative(classes.numpy(), logits[:, :1000])
    assert features.shape == (count, network.num_features)
    assert classes.shape == (count, network.num_classes)


def test_images_are_resized_as_in_tensorflow_1(graph, network):
    images = images_of(2, 32)
    pooled, logits = run_untouched(graph, resize_by_numpy(images, 299).astype(np.float32))
    features, classes = network(tf.constant(images))
    assert_relative(features.numpy(), pooled[:, 0, 0])
    assert_relative(classes.numpy(), logits[:, :1000])


@pytest.mark.parametrize("scaled", [True, False])
def test_folding_against_numpy(scaled):
    """A 1x1 convolution and its normalisation, by the op's definition."""
    g = GraphOf2015(5)
    g.node("Placeholder", "Mul", dtype=FLOAT)
    g.convolution("layer", "Mul", [1, 1, 3, 4], 1, scaled=scaled, control="^Mul")
    value = {
        n.name: tf.make_ndarray(n.attr["value"].tensor) for n in g.graph.node if n.op == "Const"
    }
    x = images_of(2, 5)
    rewritten, outputs = frozen_graph.rewrite(g.graph, "Mul", [None, 5, 5, 3], ["layer"])
    (actual,) = frozen_graph.import_function(rewritten, "Mul", outputs)(tf.constant(x))
    y = x.astype(np.float64) @ value["layer/conv2d_params"][0, 0]
    y = y - value["layer/batchnorm/moving_mean"]
    y = y / np.sqrt(value["layer/batchnorm/moving_variance"] + 0.001)
    y = y * value["layer/batchnorm/gamma"] if scaled else y
    assert_relative(actual.numpy(), np.maximum(y + value["layer/batchnorm/beta"], 0), 1e-6)


def test_rewritten_graph_holds_only_what_is_needed(graph):
    before = graph_pb2.GraphDef()
    before.CopyFrom(graph)
    rewritten, outputs = frozen_graph.rewrite(
        graph, "Mul", [None, 299, 299, 3], ["pool_3", "logits"]
    )
    ops = {node.op for node in rewritten.node}
    assert graph == before
    assert not ops & {"CheckNumerics", "Identity", "DecodeJpeg", "Softmax", "Sub"}
    assert "BatchNormWithGlobalNormalization" not in ops
    assert not any(source.startswith("^") for node in rewritten.node for source in node.input)
    assert sum(node.op == "Conv2D" for node in rewritten.node) == 4
    assert rewritten.versions.producer == tf.version.GRAPH_DEF_VERSION
    assert outputs == ["pool_3:0", "logits_sum:0"]


def test_plain_graph_and_provenance(graph_bytes, archive, network, tmp_path):
    plain = tmp_path / "renamed.pb"
    plain.write_bytes(graph_bytes)
    other = inception.open_inception(plain)
    digest = hashlib.sha256(graph_bytes).hexdigest()
    assert network.provenance["sha256"] == other.provenance["sha256"] == digest
    assert network.provenance["files"] == {
        inception.ARCHIVE_NAME: hashlib.sha256(archive.read_bytes()).hexdigest(),
        MEMBER: digest,
    }
    assert json.loads(json.dumps(network.provenance)) == network.provenance
    assert network.provenance["name"] == "inception"
    assert network.column_prefix == ""


def test_smaller_batches_and_other_sizes_do_not_trace_again(archive):
    network = inception.open_inception(archive)
    for shape in [(2, 32), (1, 32), (1, 48)]:
        network(tf.constant(images_of(*shape)))
    assert network._compiled.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("classes", [1000, 1008])
@pytest.mark.parametrize("with_bias", [True, False])
def test_other_logits(graph, network, classes, with_bias):
    images = images_of(2, 299)
    pooled, logits = run_untouched(graph, images)
    constants = {n.name: n for n in graph.node if n.op == "Const"}
    weights = tf.make_ndarray(constants["softmax/weights"].attr["value"].tensor)
    expected = logits if with_bias else pooled[:, 0, 0] @ weights
    other = network.with_logits(classes, with_bias)
    features, actual = other(tf.constant(images))
    assert other.num_classes == classes
    assert_relative(features.numpy(), pooled[:, 0, 0])
    assert_relative(actual.numpy(), expected[:, :classes])
    assert network(tf.constant(images))[1].shape == (2, 1000)  # as it was


def test_a_bias_that_does_not_show_is_not_left_out(graph):
    changed = graph_pb2.GraphDef()
    changed.CopyFrom(graph)
    (output,) = [node for node in changed.node if node.name == "logits"]
    output.input[0] = "doubled"
    changed.node.add(op="Add", name="doubled", input=["logits_sum"] * 2).attr["T"].type = FLOAT
    network = inception.InceptionNetwork.from_graph(changed.SerializeToString(), {})
    with pytest.raises(UserError, match="does not show the bias"):
        network.with_logits(1008, with_bias=False)


@pytest.mark.parametrize("size", [4, 7, 32, 400])
def test_resizing_with_half_pixel_centres(size):
    images = images_of(2, size)
    expected = cv2_resize(images)
    np.testing.assert_allclose(resize_bilinear(images, 299).numpy(), expected, atol=1e-4)


def cv2_resize(images):
    return np.stack([cv2.resize(image, (299, 299)) for image in images])


def test_unknown_network_lists_the_choices():
    with pytest.raises(UserError, match=r"'vgg'.*inception, digits"):
        open_network("vgg")


# Sources


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.pb.*No such file"):
        inception.open_inception(tmp_path / "nowhere.pb")


def test_archive_in_the_cache_is_used(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(inception, "download", lambda *_: pytest.fail("downloaded"))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / inception.ARCHIVE_NAME).write_bytes(archive.read_bytes())
    assert inception.open_inception(cache_dir=tmp_path).name == "inception"
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert inception.open_inception().name == "inception"


def test_download_happens_once(archive, tmp_path, monkeypatch):
    with serve(archive.read_bytes()) as server:
        monkeypatch.setattr(inception, "ARCHIVE_URL", server.url)
        for _ in range(2):
            inception.open_inception(cache_dir=tmp_path)
    assert len(server.requests) == 1
    visible = [p.name for p in (tmp_path / "models").iterdir() if not p.name.startswith(".")]
    assert sorted(visible) == [inception.ARCHIVE_NAME, "inception_sha256.json"]


def test_unreachable_host_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(inception, "ARCHIVE_URL", f"file://{tmp_path}/absent.tar.gz")
    monkeypatch.setattr(download, "PAUSE", 0)
    with pytest.raises(UserError, match=r"cannot download.*put the file at .*models"):
        inception.open_inception(cache_dir=tmp_path)
    assert not (tmp_path / "models" / inception.ARCHIVE_NAME).exists()


def test_a_file_that_changed_is_refused(graph_bytes, tmp_path):
    """The download is not encrypted: what once was used must stay what it was."""
    path, cache = tmp_path / "graph.pb", tmp_path / "cache"
    path.write_bytes(graph_bytes)
    first = inception.open_inception(path, cache).provenance["sha256"]
    inception.open_inception(path, cache)
    other = small_inception(seed=1).SerializeToString()
    path.write_bytes(other)
    digest = hashlib.sha256(other).hexdigest()
    with pytest.raises(UserError, match=f"changed since.*was {first} and is {digest}.*say once"):
        inception.open_inception(path, cache)
    inception.open_inception(path, cache, digest.upper())  # deliberately
    assert inception.open_inception(path, cache).provenance["sha256"] == digest
    path.write_bytes(graph_bytes)
    with pytest.raises(UserError, match="changed since"):
        inception.open_inception(path, cache)


def test_a_damaged_file_is_not_remembered(graph_bytes, tmp_path):
    path, cache = tmp_path / "graph.pb", tmp_path / "cache"
    path.write_bytes(b"\xff" * 99)
    with pytest.raises(UserError, match="not a TensorFlow GraphDef"):
        inception.open_inception(path, cache)
    path.write_bytes(graph_bytes)
    inception.open_inception(path, cache)


def test_expected_sha256(archive, graph_bytes, tmp_path):
    for digest in (archive.read_bytes(), graph_bytes):
        inception.open_inception(archive, tmp_path, hashlib.sha256(digest).hexdigest())
    with pytest.raises(UserError, match=f"not the expected {'0' * 64}.*{MEMBER} has"):
        inception.open_inception(archive, tmp_path, "0" * 64)
    with pytest.raises(UserError, match="64 hexadecimal digits"):
        open_network("inception", inception_path=archive, inception_sha256="abc")


@pytest.mark.parametrize("text", ["", "[]", "{", "7"])
def test_a_damaged_memory_is_named(archive, tmp_path, text):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "inception_sha256.json").write_text(text)
    with pytest.raises(UserError, match=r"inception_sha256\.json.*delete it"):
        inception.open_inception(archive, tmp_path)


def test_unwritable_cache_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"cache folder .*file"):
        inception.open_inception(cache_dir=tmp_path / "file")


# Hostile files


def link(kind):
    info = tarfile.TarInfo(MEMBER)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


HOSTILE_ARCHIVES = {
    "empty": (tar_gz([]), "0 members"),
    "missing": (tar_gz([("other.pb", b"data")]), "0 members"),
    "parent folder": (tar_gz([(f"../{MEMBER}", b"data")]), "0 members"),
    "sub folder": (tar_gz([(f"folder/{MEMBER}", b"data")]), "0 members"),
    "symbolic link": (tar_gz([(link(tarfile.SYMTYPE), b"")]), "not a regular file"),
    "hard link": (tar_gz([(link(tarfile.LNKTYPE), b"")]), "not a regular file"),
    "folder": (tar_gz([(link(tarfile.DIRTYPE), b"")]), "not a regular file"),
    "twice": (tar_gz([(MEMBER, b"a"), (MEMBER, b"b")]), "2 members"),
    "truncated": (tar_gz([(MEMBER, bytes(range(256)) * 9)])[:-60], "damaged or incomplete"),
    "no tar": (gzip.compress(b"not a tar file" * 99), "damaged"),
    "garbage graph": (tar_gz([(MEMBER, b"\xff" * 100)]), "not a TensorFlow GraphDef"),
    "empty graph": (tar_gz([(MEMBER, b"")]), "no nodes"),
}


@pytest.mark.parametrize("case", HOSTILE_ARCHIVES)
def test_hostile_archives(case, tmp_path):
    data, message = HOSTILE_ARCHIVES[case]
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        inception.open_inception(path)
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_archive_bombs_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(inception, "MAX_ARCHIVE_BYTES", 2**20)
    monkeypatch.setattr(inception, "MAX_GRAPH_BYTES", 2**19)
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(tar_gz([("other", bytes(2**21))]))
    with pytest.raises(UserError, match="unpacks to more than"):
        inception.open_inception(path)
    path.write_bytes(tar_gz([(MEMBER, bytes(2**19 + 1))]))
    with pytest.raises(UserError, match="sane size"):
        inception.open_inception(path)
    path.write_bytes(bytes(2**19 + 1))
    with pytest.raises(UserError, match="larger than"):
        inception.open_inception(path)


def test_sparse_member_is_refused(tmp_path):
    """A sparse member is a regular file of any claimed size; this one claims 8 EiB."""
    info = tarfile.TarInfo(MEMBER)
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"00000000000\x0000000000000\x00"[:24]
    header[483:495] = b"\x80" + bytes(3) + (2**62).to_bytes(8, "big")
    header[148:156] = b"        "
    header[148:156] = b"%06o\x00 " % sum(header)
    path = tmp_path / "sparse.tar.gz"
    path.write_bytes(gzip.compress(bytes(header) + bytes(1024)))
    with pytest.raises(UserError, match="sane size"):
        inception.open_inception(path)


def broken(change):
    graph = small_inception()
    change({node.name: node for node in graph.node}, graph)
    return graph.SerializeToString()


def cut_input(nodes, graph):
    nodes["mixed/join"].input[1] = "vanished"


def add_python_op(nodes, graph):
    nodes["mixed_1"].op = "PyFunc"


def add_file_op(nodes, graph):
    graph.node.add(op="ReadFile", name="reader", input=["DecodeJpeg/contents"])
    nodes["mixed_1"].input[0] = "reader"


def rename_output(nodes, graph):
    nodes["pool_3"].name = "pool_4"


def rename_input(nodes, graph):
    nodes["Mul"].name = "Mul_1"


def identity_loop(nodes, graph):
    nodes["conv/control_dependency"].input[0] = "conv/control_dependency"


def norm_without_convolution(nodes, graph):
    nodes["conv/batchnorm"].input[0] = "pool"


def variable_kernel(nodes, graph):
    nodes["conv/Conv2D"].input[1] = "mixed/join"


def short_gamma(nodes, graph):
    nodes["mixed/conv/batchnorm"].input[4] = "conv/batchnorm/gamma"


def too_few_parameters(nodes, graph):
    del nodes["conv/batchnorm"].input[4]


def huge_constant(nodes, graph):
    tensor = nodes["softmax/weights"].attr["value"].tensor
    tensor.tensor_content = b""
    tensor.float_val.append(1.0)
    tensor.tensor_shape.dim[0].size = 2**40


def huge_kernel(nodes, graph):
    nodes["conv/conv2d_params"].attr["value"].tensor.tensor_shape.dim[0].size = 2**40


def damaged_constant(nodes, graph):
    nodes["conv/batchnorm/beta"].attr["value"].tensor.tensor_content = b"abc"


def negative_variance(nodes, graph):
    tensor = nodes["conv/batchnorm/moving_variance"].attr["value"].tensor
    tensor.CopyFrom(tf.make_tensor_proto(np.full(8, -2, np.float32)))


def infinite_weights(nodes, graph):
    weights = np.full([2048, 1008], np.inf, np.float32)
    nodes["softmax/weights"].attr["value"].tensor.CopyFrom(tf.make_tensor_proto(weights))


def wrong_attribute(nodes, graph):
    nodes["mixed/join"].attr["N"].i = 7


def cycle(nodes, graph):
    nodes["pool"].input[0] = "mixed/join"


BROKEN_GRAPHS = {
    cut_input: "no node vanished, which node mixed/join needs",
    add_python_op: "PyFunc",
    add_file_op: "ReadFile",
    rename_output: "no node pool_3",
    rename_input: "no node Mul;",
    identity_loop: "conv/control_dependency",
    norm_without_convolution: "conv/batchnorm of the graph does not follow",
    variable_kernel: "mixed/join, which conv/Conv2D reads",
    short_gamma: "mixed/conv/batchnorm of the graph has parameters of unfitting shapes",
    too_few_parameters: "4 inputs",
    huge_constant: "softmax/weights",
    huge_kernel: "conv/conv2d_params",
    damaged_constant: "conv/batchnorm/beta",
    negative_variance: "conv/batchnorm of the graph has damaged weights",
    infinite_weights: "logits of the network: NaN",
    wrong_attribute: "cannot import",
    cycle: "cannot import",
}


@pytest.mark.parametrize("change", BROKEN_GRAPHS, ids=lambda change: change.__name__)
def test_broken_graphs(change):
    with pytest.raises(UserError, match=BROKEN_GRAPHS[change]):
        inception.InceptionNetwork.from_graph(broken(change), {})


def test_repeated_names():
    graph = small_inception()
    graph.node.add(op="Relu", name="conv", input=["Mul"])
    with pytest.raises(UserError, match="one name"):
        inception.InceptionNetwork.from_graph(graph.SerializeToString(), {})


@pytest.mark.parametrize(("features", "logits"), [(64, 1008), (2048, 1000)])
def test_wrong_sizes(features, logits):
    graph = small_inception(features=features, logits=logits)
    with pytest.raises(UserError, match="instead of float32"):
        inception.InceptionNetwork.from_graph(graph.SerializeToString(), {})


SMALL = small_inception(features=4, logits=3).SerializeToString()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1))
def test_damaged_bytes_never_raise_anything_else(changes):
    data = bytearray(SMALL)
    for position, value in changes:
        data[position] = value
    try:
        graph = frozen_graph.parse_graph(bytes(data))
        frozen_graph.rewrite(graph, "Mul", [None, 299, 299, 3], ["pool_3", "logits"])
    except UserError:
        pass


def test_a_constant_that_the_file_does_not_hold_is_not_unfolded():
    graph = tf.compat.v1.GraphDef()
    node = graph.node.add(name="vast", op="Const")
    node.attr["dtype"].type = tf.float32.as_datatype_enum
    node.attr["value"].tensor.dtype = tf.float32.as_datatype_enum
    node.attr["value"].tensor.tensor_shape.dim.add(size=2**20)
    node.attr["value"].tensor.float_val.append(1.0)
    node.attr["_padding"].s = bytes(10_000)
    light, weights = frozen_graph._without_weights(graph)
    assert (list(light.node), weights) == ([node], {})

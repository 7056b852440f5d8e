"""The index of a checkpoint: what TensorFlow would end the process over is refused before."""

import time
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import tensor_bundle_pb2

from common.parsers.checkpoint_index import check_index
from common.training.checkpoints import list_checkpoints
from tests.faults.table_files import join_blocks, split_blocks


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of tensors of several shapes and kinds."""
    tensors = {
        f"v{i}": tf.Variable(tf.zeros(shape)) for i, shape in enumerate([[], [0, 3], [2, 3]])
    }
    tensors |= {f"text{i}": tf.Variable("a text " * i) for i in range(200)}
    tf.train.Checkpoint(**tensors).write(str(tmp_path / "model-1"))
    return tmp_path / "model-1"


def test_what_tensorflow_wrote_is_accepted(checkpoint):
    check_index(checkpoint)


@pytest.mark.parametrize("length", [0, 7, 47, 60, 500])
def test_an_index_cut_short_is_refused(checkpoint, length):
    path = Path(f"{checkpoint}.index")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="damaged"):
        check_index(checkpoint)


def _number(value):
    """An integer as tables have it: seven bits a byte, the lowest first."""
    more = [value >> shift & 127 | 128 for shift in range(0, max(1, value.bit_length()), 7)]
    return bytes([*more[:-1], more[-1] & 127])


def _write(path, entry, more=b"", names=1):
    """Writes an index with one entry besides the header, and right checksums.

    `more` are further entries of the block, which the index names `names` times.
    """
    header = tensor_bundle_pb2.BundleHeaderProto(num_shards=1).SerializeToString()
    block = b"".join(
        b"\0" + bytes([len(key), len(value)]) + key + value
        for key, value in ((b"", header), (b"weight", entry))
    )
    block += more + bytes(4) + b"\1\0\0\0"  # one restart, at 0
    meta = bytes(4) + b"\1\0\0\0"
    place = _number(0) + _number(len(block))
    index = (b"\0\1" + _number(len(place)) + b"x" + place) * names + bytes(4) + b"\1\0\0\0"
    meta_at = len(block) + 5
    places = (meta_at, len(meta), meta_at + len(meta) + 5, len(index))
    handles = b"".join(map(_number, places))
    footer = handles.ljust(40, b"\0") + 0xDB4775248B80FB57.to_bytes(8, "little")
    path.write_bytes(join_blocks([block, meta, index], footer))


def _entry(**values):
    return tensor_bundle_pb2.BundleEntryProto(dtype=1, **values)


def _shape(*sizes):
    return {"dim": [{"size": size} for size in sizes]}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (b"\xff\xff", "damaged"),
        (_entry(shape=_shape(2, -1)), "no definite shape"),
        (_entry(shape={"unknown_rank": True}), "no definite shape"),
        (_entry(slices=[{"extent": [{"start": 0}]}]), "no definite shape"),
        (_entry(shape=_shape(2**30, 2**30)), "impossible shape"),
        (_entry(size=-1), "impossible place"),
        (_entry(shard_id=-1), "impossible place"),
    ],
)
def test_nonsense_with_right_checksums_is_refused(tmp_path, entry, words):
    data = entry if isinstance(entry, bytes) else entry.SerializeToString()
    _write(tmp_path / "model-1.index", data)
    with pytest.raises(ValueError, match=words):
        check_index(tmp_path / "model-1")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (bytes(3) * 1_200_000, None),  # in seconds, not hours
        (b"\0\x88\x27\0" + b"k" * 5000 + b"\x88\x27\0\0" * 10, "longer than 4,096"),
        (bytes(3) * 1_400_000, "larger than"),
    ],
    ids=["many empty entries", "a long key", "too many"],
)
def test_entries_take_bounded_time(tmp_path, entries, words):
    header = tensor_bundle_pb2.BundleHeaderProto().SerializeToString()
    assert not header  # so that an empty entry is a header
    start = time.process_time()
    _write(tmp_path / "model-1.index", b"", entries)
    if words is None:
        check_index(tmp_path / "model-1")
    else:
        with pytest.raises(ValueError, match=words):
            check_index(tmp_path / "model-1")
    assert time.process_time() - start < 60


def test_a_block_that_is_named_twice_is_refused(tmp_path):
    _write(tmp_path / "model-1.index", _entry(shape=_shape(2, 3)).SerializeToString(), names=2)
    with pytest.raises(ValueError, match="overlap"):
        check_index(tmp_path / "model-1")


def test_the_same_index_with_sense_in_it_is_accepted_by_tensorflow_too(tmp_path):
    _write(tmp_path / "model-1.index", _entry(shape=_shape(2, 3), size=24).SerializeToString())
    check_index(tmp_path / "model-1")
    (tmp_path / "model-1.data-00000-of-00001").write_bytes(bytes(24))
    reader = tf.train.load_checkpoint(str(tmp_path / "model-1"))
    assert reader.get_variable_to_shape_map() == {"weight": [2, 3]}


def test_blocks_are_split_and_joined_to_the_same_bytes(checkpoint):
    data = Path(f"{checkpoint}.index").read_bytes()
    assert join_blocks(*split_blocks(data)) == data


def test_files_of_similar_names_are_no_checkpoints(tmp_path):
    for name in ("model-9.index.copy", "model-9.index~", "model-x.index", "model-9.index"):
        (tmp_path / name).touch()
    assert list_checkpoints(tmp_path) == [tmp_path / "model-9"]

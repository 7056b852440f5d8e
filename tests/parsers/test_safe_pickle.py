"""The pickle decoder: genuine pickles come out right, and nothing else does anything."""

import builtins
import contextlib
import copyreg
import os
import pickle
import pickletools
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.parsers import safe_pickle
from common.parsers.safe_pickle import PickleRefusedError
from tests.data.archives import labels_of, python2_batch, rows


def decode(data: bytes) -> np.ndarray:
    batch = safe_pickle.load(data)
    return safe_pickle.as_uint8_matrix(batch.get(b"data", batch.get("data")), 3072)


@pytest.mark.parametrize("fortran", [False, True])
def test_python2_pickle(fortran):
    expected = rows(7, seed=1)
    data = python2_batch(expected, fortran)
    # Python's own unpickler confirms that the hand-written pickle is a real one.
    oracle = pickle.loads(data, encoding="bytes")
    assert np.array_equal(oracle[b"data"], expected)
    assert oracle[b"data"].flags.f_contiguous == fortran
    assert np.array_equal(decode(data), expected)
    batch = safe_pickle.load(data)
    assert batch[b"labels"] == oracle[b"labels"] == labels_of(expected).tolist()
    assert batch[b"filenames"] == [b"a.png", b"b.png"]


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("key", ["data", b"data"])
def test_python3_pickle(protocol, order, key):
    expected = rows(5, seed=2)
    batch = {key: np.array(expected, order=order), "labels": [1, 2], b"filenames": [b"x"]}
    assert np.array_equal(decode(pickle.dumps(batch, protocol=protocol)), expected)


def test_numpy_1_and_2_module_names():
    expected = rows(2, seed=3)
    for module in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        data = python2_batch(expected, reconstruct=b"c" + module + b"\n_reconstruct\nq\x07")
        assert np.array_equal(decode(data), expected)


class _Reduce:
    def __init__(self, *reduction):
        self.reduction = reduction

    def __reduce__(self):
        return self.reduction


class _Witness:
    """Something whose execution can be noticed."""

    calls = 0

    @classmethod
    def call(cls, *_):
        cls.calls += 1


HOSTILE = {
    "os.system": _Reduce(os.system, ("exit 1",)),
    "eval": _Reduce(builtins.eval, ("1+1",)),
    "getattr": _Reduce(getattr, ("", "join")),
    "numpy.load": _Reduce(np.load, ("evil.npy", None, True)),
    "copyreg": _Reduce(copyreg._reconstructor, (object, object, None)),
    "object array": np.array([_Reduce(os.getcwd, ())], dtype=object),
    "structured array": np.zeros(3, dtype=[("a", "u1")]),
    "function": os.system,
    "class": np.ndarray.__mro__[1],
    "set": {1, 2},
    "float": 1.5,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("nested", [False, True])
def test_hostile_objects_are_refused(name, protocol, nested):
    value = [({"a": HOSTILE[name]},)] if nested else HOSTILE[name]
    data = pickle.dumps({"x": value, "data": value}, protocol=protocol)
    with pytest.raises(PickleRefusedError):
        decode(data)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_nothing_is_executed(protocol):
    data = pickle.dumps({"data": _Reduce(_Witness.call, ())}, protocol=protocol)
    pickle.loads(data)
    assert _Witness.calls == 1  # the pickle works, with Python's unpickler
    with pytest.raises(PickleRefusedError):
        decode(data)
    assert _Witness.calls == 1
    _Witness.calls = 0


def test_message_names_the_global():
    with pytest.raises(PickleRefusedError, match=r"global 'posix\.system' is not allowed"):
        safe_pickle.load(pickle.dumps(os.system))


def test_extension_code_is_refused():
    copyreg.add_extension(os.getcwd.__module__, "getcwd", 240)
    try:
        data = pickle.dumps(os.getcwd, protocol=2)
        assert b"\x82\xf0" in data
        assert pickle.loads(data) is os.getcwd  # now in Python's cache, which skips find_class
        with pytest.raises(PickleRefusedError, match="EXT1"):
            safe_pickle.load(data)
    finally:
        copyreg.remove_extension(os.getcwd.__module__, "getcwd", 240)
        copyreg.clear_extension_cache()


def batch_with(**changes: bytes) -> bytes:
    return python2_batch(rows(2, seed=4), **changes)


REDUCE_NDARRAY = b"cnumpy\nndarray\n(K\x02tR"
DTYPE = b"cnumpy\ndtype\n"
SPOILT = {
    "persistent id": (batch_with(key=b"Pid\n"), "PERSID"),
    "binary persistent id": (batch_with(key=b"K\x01Q"), "BINPERSID"),
    "instance": (batch_with(labels=b"U\x01a(ios\nsystem\n"), "INST"),
    "object": (batch_with(labels=b"U\x01a(cnumpy\ndtype\no"), "OBJ"),
    "new object": (batch_with(labels=b"U\x01acnumpy\ndtype\n)\x81"), "NEWOBJ"),
    "pickle of a pickle's call": (batch_with(labels=b"U\x01acnumpy\ndtype\n)R)R"), "permitted"),
    "other dtype": (batch_with(dtype=DTYPE + b"U\x02u2K\x00K\x01\x87R"), "'u2', not 'u1'"),
    "object dtype": (batch_with(dtype=DTYPE + b"U\x02O8K\x00K\x01\x87R"), "'O8', not 'u1'"),
    "signed dtype": (batch_with(dtype=DTYPE + b"U\x02i1K\x00K\x01\x87R"), "'i1', not 'u1'"),
    "field names": (batch_with(dtype_state=b"(K\x03U\x01|NU\x01aNK\x01K\x01K\x00tb"), "plain"),
    "dtype missing": (batch_with(dtype=b"N", dtype_state=b""), "data type"),
    "ndarray called": (batch_with(arguments=b"N\x85R", build=b"tb"), "unknown kind"),
    "data is ndarray(...)": (batch_with(reconstruct=REDUCE_NDARRAY, arguments=b""), "NumPy array"),
    "width": (batch_with(shape=b"K\x02M\x01\x0c\x86"), r"\(2, 3073\) instead of \(n, 3072\)"),
    "one axis": (batch_with(shape=b"M\x00\x18\x85"), r"\(6144,\) instead"),
    "three axes": (batch_with(shape=b"K\x02M\x00\x04K\x03\x87"), "instead of"),
    "zero rows": (batch_with(shape=b"K\x00M\x00\x0c\x86"), r"\(0, 3072\)"),
    "negative rows": (batch_with(shape=b"J\xff\xff\xff\xffM\x00\x0c\x86"), r"\(-1, 3072\)"),
    "boolean rows": (batch_with(shape=b"\x88M\x00\x0c\x86"), "nonsense"),
    "huge rows": (batch_with(shape=b"J\xff\xff\xff\x7fM\x00\x0c\x86"), "6,144 bytes instead"),
    "short data": (batch_with(raw=b"U\x03abc"), "has 3 bytes instead of 6,144"),
    "data is a list": (batch_with(raw=b"]"), "not bytes"),
    "data is text": (batch_with(raw=b"X\x03\x00\x00\x00abc"), "not bytes"),
    "wide text": (batch_with(raw=b"c_codecs\nencode\nX\x03\x00\x00\x00\xe2\x82\xacX\x06"
                  b"\x00\x00\x00latin1\x86R"), "latin-1"),
    "other codec": (batch_with(raw=b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13"
                    b"\x86R"), "does not make bytes"),
    "order": (batch_with(order=b"K\x02"), "neither C nor Fortran"),
    "short state": (batch_with(version=b"("), "no contents"),
    "no state": (batch_with(version=b"", shape=b"", dtype=b"", dtype_state=b"", order=b"",
                 raw=b"", build=b""), "no contents"),
    "state twice": (batch_with(build=b"tb)b"), "twice"),
    "state of a dictionary": (batch_with(tail=b"u)b."), "dict where a Call"),
    "unhashable key": (batch_with(key=b"]"), "key of type list"),
    "number as key": (batch_with(key=b"K\x01"), "key of type int"),
    "odd items": (batch_with(tail=b"K\x01u."), "without a value"),
    "memo left out": (b"\x80\x02Nq\x05h\x03\x86.", "no memo 3"),
    "unknown memo": (batch_with(labels=b"h\xfah\xfa"), "no memo 250"),
    "empty stack": (b"\x80\x02.", "on the stack"),
    "stack underflow": (b"\x80\x020.", "POP"),
    "pop below mark": (b"\x80\x02K\x01(\x85.", "too few"),
    "no mark": (b"\x80\x02t.", "no mark"),
    "two values": (b"\x80\x02K\x01K\x02.", "left on the stack"),
    "open mark": (b"\x80\x02(K\x01.", "left on the stack"),
    "empty": (b"", "damaged"),
    "global of a list": (b"\x80\x04]]\x93.", "not a string"),
    "not a pickle": (b"\xff\xff", "damaged"),
    "protocol 0": (b"(dp0\nS'data'\np1\nI1\ns.", "protocol 2 to 4"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_pickles_are_refused(name):
    data, message = SPOILT[name]
    with pytest.raises(PickleRefusedError, match=message):
        decode(data)


def test_every_truncation_is_refused():
    data = python2_batch(rows(1, seed=5))
    for length in [*range(0, 400), *range(400, len(data), 97), len(data) - 1]:
        with pytest.raises(PickleRefusedError):
            decode(data[:length])


def test_instruction_limit(monkeypatch):
    monkeypatch.setattr(safe_pickle, "MAX_INSTRUCTIONS", 100)
    with pytest.raises(PickleRefusedError, match="more than 100 instructions"):
        safe_pickle.load(b"\x80\x02" + b"]" * 1000 + b".")


BOMBS = {
    # Hashing this tuple would take 2**60 steps; hashing the next would exhaust the C stack.
    "exponential key": b"\x80\x02}K\x01\x85" + b"q\x00h\x00\x86" * 60 + b"K\x01s.",
    "deep key": b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s.",
    "huge memo index": b"\x80\x02}r\xff\xff\xff\x7f.",
    "huge string": b"\x80\x02T\xff\xff\xff\x7fabc.",
    "huge bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",
    "huge bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"abc.",
    "many instructions": b"\x80\x02" + b"N" * 1_000_001 + b".",
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.timeout(20)
def test_bombs_are_harmless(name):
    with pytest.raises(PickleRefusedError):
        safe_pickle.as_uint8_matrix(safe_pickle.load(BOMBS[name]), 3072)


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


# A text of 1 MiB (memo 1), and what encodes it (memo 0 and 2); each call below copies the text.
TEXT = b"c_codecs\nencode\nq\x00" + text("a" * 2**20) + b"q\x01" + text("latin1") + b"q\x02"
ENCODED = b"h\x00h\x01h\x02\x86R"
LONG = b"\x8a\xff" + b"\x7f" * 255  # 614 digits
KEY = text("k" * 2**24)

# Small pickles in which references to one large value would make copies of it, or compare it.
MEMO_BOMBS = {
    "encoded in a list": (
        b"](" + TEXT + ENCODED * 3000 + b"e.",
        "more bytes than the pickle",
    ),
    "encoded in a tuple": (b"(" + TEXT + ENCODED * 3000 + b"t.", "more bytes than the pickle"),
    "encoded as items": (
        b"}(" + text("z") + TEXT + b"\x87" + (text("k") + ENCODED) * 3000 + b"u.",
        "more bytes than the pickle",
    ),
    "encoded in calls": (
        b"(" + TEXT + b"cnumpy\ndtype\nq\x03" + (b"h\x03" + ENCODED + b"\x85R") * 3000 + b"t.",
        "more bytes than the pickle",
    ),
    "shape of long numbers": (
        batch_with(shape=b"(" + LONG + b"q\xf0" + b"h\xf0" * 900_000 + b"t"),
        "instead of",
    ),
    "equal keys": (
        b"}" + KEY + b"q\x00Ns}" + KEY + b"q\x01Ns" + b"h\x00Nsh\x01Ns" * 100_000 + b".",
        "key of length 16,777,216",
    ),
}

# The parent's own size must not matter: the limit is relative to the child's after its imports.
DECODE_LIMITED = """
import resource, sys
from common.parsers import safe_pickle
data = sys.stdin.buffer.read()
with open("/proc/self/statm") as file:
    pages = int(file.read().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    batch = safe_pickle.load(data)
    value = batch.get(b"data") if isinstance(batch, dict) else batch
    safe_pickle.as_uint8_matrix(value, 3072)
except safe_pickle.PickleRefusedError as error:
    print("refused:", error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS and /proc")
@pytest.mark.parametrize("name", MEMO_BOMBS)
@pytest.mark.timeout(60)
def test_references_do_not_amplify_memory(name):
    data, message = MEMO_BOMBS[name]
    data = data if data.startswith(b"\x80") else b"\x80\x02" + data
    command = [sys.executable, "-c", DECODE_LIMITED, str(250 * 2**20)]
    child = subprocess.run(command, input=data, capture_output=True, check=False)
    assert child.stderr == b""
    output = child.stdout.decode()
    assert output.startswith("refused: ")
    assert message in output


def test_python3_protocol_2_bytes_come_out():
    values = [bytes(range(256)) * 100, b"a", b"a", b"\xff" * 5000, b"x" * 300]
    values += [bytes([n]) for n in range(256)] * 2
    values.append(values[0])  # the same object: written once
    batch = {"data": values, b"key": tuple(values)}
    data = pickle.dumps(batch, protocol=2)
    assert b"_codecs" in data
    assert safe_pickle.load(data) == batch
    # The tightest case: one text, and of ASCII, where a character is one byte of the pickle.
    assert safe_pickle.load(pickle.dumps(b"a" * 10**6, protocol=2)) == b"a" * 10**6


def test_encoding_a_text_twice():
    call = b"c_codecs\nencode\n"
    once = call + text("abc" * 50) + b"q\x00" + text("latin1") + b"q\x01\x86R"
    again = call + b"h\x00h\x01\x86R"
    with pytest.raises(PickleRefusedError, match="more bytes than the pickle has"):
        safe_pickle.load(b"\x80\x02(" + once + again * 10 + b"t.")


@pytest.mark.timeout(20)
def test_deep_nesting_is_harmless():
    depth = 50_000
    lists = b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."
    calls = b"\x80\x02" + b"cnumpy\ndtype\n" * depth + b")" + b"R\x85" * depth + b"."
    for data in (lists, calls):
        value = safe_pickle.load(data)
        with pytest.raises(PickleRefusedError, match="not a NumPy array"):
            safe_pickle.as_uint8_matrix(value, 3072)
        del value


SEEDS = [
    python2_batch(rows(1, seed=6)),
    pickle.dumps({"data": rows(1, seed=7), "labels": [3]}, protocol=2),
    pickle.dumps({"data": rows(1, seed=8), "labels": [3]}, protocol=4),
]
OPCODES = [code.code.encode("latin-1") for code in pickletools.opcodes]


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(SEEDS), st.data())
def test_fuzzed_pickles_are_read_or_refused(seed, data):
    mutant = bytearray(seed)
    # The instructions are at both ends; in between there are 3 kB of pixels.
    position = st.integers(0, 400) | st.integers(len(seed) - 200, len(seed))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(position)
        length = data.draw(st.integers(0, 4))
        mutant[start : start + length] = data.draw(st.sampled_from(OPCODES) | st.binary(max_size=5))
    try:
        array = decode_any(bytes(mutant))
    except PickleRefusedError:
        return
    assert array.dtype == np.uint8
    assert array.shape[1:] == (3072,)


@settings(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from(OPCODES) | st.binary(max_size=3), max_size=40))
def test_random_instructions_are_read_or_refused(parts):
    with contextlib.suppress(PickleRefusedError):
        safe_pickle.load(b"\x80\x02" + b"".join(parts) + b".")


def decode_any(data: bytes) -> np.ndarray:
    batch = safe_pickle.load(data)
    value = batch.get(b"data", batch.get("data")) if isinstance(batch, dict) else batch
    return safe_pickle.as_uint8_matrix(value, 3072)

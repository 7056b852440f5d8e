"""Reads PyTorch's files of weights without PyTorch: nothing in them is ever executed.

Both forms of `torch.save` are read, the zip archive (PyTorch 1.6 and later) and the stream of
pickles before it. The pickles are decoded by `common.parsers.safe_pickle`.
"""

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from common.errors import UserError
from common.parsers import safe_pickle
from common.parsers.safe_pickle import Call, Global, PersistentId, PickleRefusedError, Vocabulary

ZIP_MAGIC = b"PK\x03\x04"
# The pickle of a number that begins the older form.
STREAM_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

_TENSOR, _PARAMETER, _DICT = "tensor", "parameter", "dict"
_DTYPES: dict[str, np.dtype] = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}
_MAX_RANK = 8
_HEADER_PICKLES = 3  # magic number, protocol, sizes of C's types


def _empty_dict(machine: Any, arguments: tuple) -> dict:
    del machine
    if arguments:
        raise PickleRefusedError("an OrderedDict that is not empty at first")
    return {}


_VOCABULARY = Vocabulary(
    globals={
        ("collections", "OrderedDict"): _DICT,
        ("torch._utils", "_rebuild_tensor_v2"): _TENSOR,
        ("torch._utils", "_rebuild_parameter"): _PARAMETER,
        **{("torch", name): name for name in _DTYPES},
    },
    plain={_DICT: _empty_dict},
    persistent=True,
    dict_state=True,
)


def is_torch_file(data: bytes) -> bool:
    """Tells whether bytes begin as a file that `torch.save` wrote."""
    return data.startswith((ZIP_MAGIC, STREAM_MAGIC))


def read_state_dict(data: bytes) -> dict[str, np.ndarray]:
    """Reads a `state_dict`: tensors by name.

    Args:
        data: The whole file.

    Returns:
        Arrays of their own, C order.

    Raises:
        UserError: The file is damaged, or is anything but a dictionary of tensors.
    """
    try:
        value, storages = _from_zip(data) if data.startswith(ZIP_MAGIC) else _from_stream(data)
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise PickleRefusedError("not a dictionary of tensors")
        return {name: _tensor(record, storages) for name, record in value.items()}
    except PickleRefusedError as error:
        raise UserError(f"it is not a readable file of PyTorch weights: {error}") from error


class _Storages:
    """The numbers behind the tensors.

    Args:
        contents: Bytes by key.
    """

    def __init__(self, contents: Mapping[str, bytes | memoryview]) -> None:
        self._contents = contents

    def array(self, reference: Any) -> np.ndarray:
        """The whole storage that a persistent id names, one-dimensional and read-only."""
        match reference:
            case PersistentId(("storage", Global(kind), str(key), str(), int(count))):
                pass
            case PersistentId(("storage", Global(kind), str(key), str(), int(count), None)):
                pass
            case _:
                raise PickleRefusedError("a tensor without a storage")
        if kind not in _DTYPES or key not in self._contents:
            raise PickleRefusedError(f"storage {key[:20]!r} is missing")
        dtype, content = _DTYPES[kind], self._contents[key]
        if len(content) != count * dtype.itemsize:
            raise PickleRefusedError(
                f"storage {key[:20]!r} has {len(content):,} bytes instead of {count} {dtype.name}"
            )
        return np.frombuffer(content, dtype)


def _tensor(record: Any, storages: _Storages) -> np.ndarray:
    match _without_parameter(record):
        case Call(
            function=str(name), arguments=(reference, int(offset), tuple(size), tuple(stride), *_)
        ) if name == _TENSOR:
            pass
        case _:
            raise PickleRefusedError("a value that is not a tensor")
    numbers = (offset, *size[:_MAX_RANK], *stride[:_MAX_RANK])
    possible = len(size) == len(stride) <= _MAX_RANK
    if not possible or not all(type(n) is int and 0 <= n < 2**40 for n in numbers):
        raise PickleRefusedError("a tensor of impossible shape")
    storage = storages.array(reference)
    # Strides may be any, as of a transposed tensor, but none may make much of a small storage.
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > len(storage) or (math.prod(size) and last >= len(storage)):
        raise PickleRefusedError(f"a tensor {list(size)} exceeds its storage")
    if not math.prod(size):
        return np.zeros(size, storage.dtype)
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False).copy()


def _without_parameter(record: Any) -> Any:
    """The tensor that a parameter merely wraps."""
    while isinstance(record, Call) and record.function == _PARAMETER and record.arguments:
        record = record.arguments[0]
    return record


def _from_zip(data: bytes) -> tuple[Any, _Storages]:
    """The pickled value and the storages of the newer form; each is stored uncompressed."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {member.filename: member for member in archive.infolist()}
            roots = [name[: -len("data.pkl")] for name in members if name.endswith("/data.pkl")]
            size = sum(member.file_size for member in members.values())
            compressed = any(member.compress_type for member in members.values())
            if len(roots) != 1 or compressed or size > len(data):
                raise PickleRefusedError("the archive is not one of torch.save")
            root = roots[0]
            order = members.get(f"{root}byteorder")
            if order and archive.read(order) != b"little":
                raise PickleRefusedError("its numbers are not little-endian")
            value = safe_pickle.load(archive.read(f"{root}data.pkl"), _VOCABULARY)
            prefix = f"{root}data/"
            contents = {
                n.removeprefix(prefix): archive.read(n) for n in members if n.startswith(prefix)
            }
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
        raise PickleRefusedError(f"damaged: {error}") from error
    except NotImplementedError as error:
        raise PickleRefusedError(f"an archive of unknown kind: {error}") from error
    return value, _Storages(contents)


def _from_stream(data: bytes) -> tuple[Any, _Storages]:
    """The pickled value and the storages of the older form, which follow it with their lengths."""
    stream = io.BytesIO(data)
    header = [safe_pickle.load_next(stream, len(data), _VOCABULARY) for _ in range(_HEADER_PICKLES)]
    if not isinstance(header[-1], dict) or header[-1].get("little_endian") is not True:
        raise PickleRefusedError("its numbers are not little-endian")
    value = safe_pickle.load_next(stream, len(data), _VOCABULARY)
    keys = safe_pickle.load_next(stream, len(data), _VOCABULARY)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise PickleRefusedError("damaged: no list of storages")
    sizes = _item_sizes(value)
    contents, position, view = {}, stream.tell(), memoryview(data)
    for key in keys:
        count = int.from_bytes(data[position : position + 8], "little")
        position += 8
        stop = position + count * sizes.get(key, 1)
        if stop > len(data):
            raise PickleRefusedError("damaged: truncated")
        contents[key] = view[position:stop]
        position = stop
    return value, _Storages(contents)


def _item_sizes(value: Any) -> dict[str, int]:
    """Bytes of a number in each storage that a dictionary's tensors refer to."""
    sizes = {}
    for record in value.values() if isinstance(value, dict) else ():
        match _without_parameter(record):
            case Call(arguments=(PersistentId((_, Global(kind), str(key), *_)), *_)):
                sizes[key] = _DTYPES[kind].itemsize if kind in _DTYPES else 1
    return sizes

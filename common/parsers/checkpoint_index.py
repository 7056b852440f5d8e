"""Checks the index of a TensorFlow checkpoint before TensorFlow reads it.

TensorFlow verifies the checksums, and returns errors for what does not fit them. But where an entry
is nonsense and its checksum is right, it ends the whole process. The index is a table of LevelDB:
blocks of entries `(length shared with the last key, rest of the key, value)`, and a footer.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError

from common.keras_private import tensor_bundle_pb2

_FOOTER = 48  # bytes: two handles, padding, magic number
_MAGIC = 0xDB4775248B80FB57
_MAX_BYTES = 2**22  # a hundred times the usual size
_MAX_KEY = 4096
_MAX_ELEMENTS = 2**40


def check_index(checkpoint: str | Path) -> None:
    """Checks `<checkpoint>.index`, apart from its checksums.

    Args:
        checkpoint: path of the checkpoint, without a suffix.

    Raises:
        OSError: as of reading.
        ValueError: it is not the index of a checkpoint.
    """
    with Path(f"{checkpoint}.index").open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(f"the index is larger than {_MAX_BYTES:,} bytes")
    if len(data) < _FOOTER or int.from_bytes(data[-8:], "little") != _MAGIC:
        raise ValueError("the index is damaged, or not one")
    try:
        for key, value in _entries(data):
            _check_entry(key, value)
    except (IndexError, struct.error, DecodeError) as error:
        raise ValueError(f"the index is damaged ({error})") from error


def _entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields all keys and values of a table."""
    footer = len(data) - _FOOTER
    _, place = _handle(data, footer)
    index, _ = _handle(data, place)
    end = 0
    for _, value in _block_entries(data, *index):
        (offset, size), _ = _handle(value, 0)
        if offset < end:  # a block that is named twice would be read twice
            raise ValueError("blocks of the index overlap")
        end = offset + size
        yield from _block_entries(data, offset, size)


def _block_entries(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yields the keys and values of a block."""
    block = data[offset : offset + size]
    if len(block) != size or data[offset + size] != 0:
        raise ValueError("a block of the index is cut short or compressed")
    (restarts,) = struct.unpack("<I", block[-4:])
    end, place, key = max(0, len(block) - 4 - 4 * restarts), 0, b""
    while place < end:
        shared, place = _varint(block, place)
        fresh, place = _varint(block, place)
        length, place = _varint(block, place)
        if shared > len(key) or place + fresh + length > end:
            raise ValueError("an entry of the index is cut short")
        if shared + fresh > _MAX_KEY:
            raise ValueError(f"a key of the index is longer than {_MAX_KEY:,} bytes")
        key = key[:shared] + block[place : place + fresh]
        place += fresh
        yield key, block[place : place + length]
        place += length


def _handle(data: bytes, place: int) -> tuple[tuple[int, int], int]:
    """`(offset, size)` of a block, and the place of what follows."""
    offset, place = _varint(data, place)
    size, place = _varint(data, place)
    return (offset, size), place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """An integer of seven bits a byte, the lowest first, and the place of what follows it."""
    value = 0
    for position in range(10):
        byte = data[place + position]
        value |= (byte & 127) << 7 * position
        if byte < 128:
            return value, place + position + 1
    raise ValueError("a number in the index is too long")


def _check_entry(key: bytes, value: bytes) -> None:
    if not key:
        tensor_bundle_pb2.BundleHeaderProto().ParseFromString(value)
        return
    entry = tensor_bundle_pb2.BundleEntryProto()
    entry.ParseFromString(value)
    sizes = [dimension.size for dimension in entry.shape.dim]
    if entry.shape.unknown_rank or entry.slices or min([0, *sizes]) < 0:
        raise ValueError(f"{key!r} in the index has no definite shape")
    if math.prod(max(1, size) for size in sizes) > _MAX_ELEMENTS or len(sizes) > 254:
        raise ValueError(f"{key!r} in the index has the impossible shape {sizes[:10]}")
    if min(entry.offset, entry.size, entry.shard_id) < 0:
        raise ValueError(f"{key!r} in the index is at an impossible place")

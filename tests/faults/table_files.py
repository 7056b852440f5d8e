"""TensorFlow's `.index` files: opened and sealed again, so that spoilt contents pass the checksums.

The format is LevelDB's table: blocks, each with a byte for its compression and a masked CRC-32C,
and a footer of 48 bytes that says where the last two blocks, of which one lists the others, lie.
"""

import itertools

_TRAILER = 5  # bytes behind a block
_FOOTER = 48


def split_blocks(data):
    """The contents of a small table's three blocks (data, meta, index), and its footer."""
    footer = data[-_FOOTER:]
    meta_start, rest = _varint(footer)
    _, rest = _varint(rest)
    index_start, _ = _varint(rest)
    ends = [0, meta_start, index_start, len(data) - _FOOTER]
    blocks = [data[a : b - _TRAILER] for a, b in itertools.pairwise(ends)]
    return blocks, footer


def join_blocks(blocks, footer):
    """A table of these blocks, uncompressed, with right checksums."""
    return b"".join(block + _trailer(block) for block in blocks) + footer


def _varint(data):
    value = shift = position = 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, data[position:]


def _trailer(block):
    crc = crc32c(block + b"\0")
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
    return b"\0" + masked.to_bytes(4, "little")


def crc32c(data):
    """The CRC-32C (Castagnoli) of bytes."""
    crc = 2**32 - 1
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 255]
    return crc ^ 2**32 - 1


def _row(byte):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_TABLE = [_row(byte) for byte in range(256)]

"""Mutations of valid input: of bytes, of text, and of nested Python values."""

import re

import numpy as np

_EXTREMES = [0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]
_TOKENS = [
    *("", "0", "-1", "1e999", "nan", "-inf", "9" * 30, "9" * 5000, "2147483648", "0x10", "1_000"),
    *("null", "true", "None", "[]", "{}", "[[", '"', "'", "\\u0000", "\\ud800", "\\", "é", "²"),
    *("\udcff", "\n", "\r\n", "\t", "\x1b[2J", "=", ",", "+", "--", "/", "../", "/etc/passwd"),
    *("[" * 100_000, '{"a":' * 20_000, "(" * 500, "x" * 5000),
]
_VALUES = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 10**5000, 0.0, -0.0, 1e-320, 1e308),
    *(float("nan"), float("inf"), "", ".", "..", "a/b", "\n", "\udcff", "\x00", "x" * 5000, b"x"),
    *([], {}, (), [[]], [None], {"a": [1]}, {1: [1]}, {None: []}, range(3), range(10**9), {1, 2}),
    *(["0", "0"], list(range(2000)), 1j, int, object()),
]


class Spoiler:
    """Spoils some of the pieces that an input is built of, the same ones for the same number.

    An archive's bytes are spoilt before or after they are packed, so that what is behind a
    checksum is reached too: whoever builds the input hands over every layer on the way.

    Args:
        seed, number: determine all choices.
        stages: how many pieces will be handed over; 0 spoils none and counts them.

    Attributes:
        count: how many pieces were handed over.
    """

    def __init__(self, seed=0, number=0, stages=0):
        self._rng = np.random.Generator(np.random.Philox(key=[seed, number]))
        size = min(stages, 1 + self._chance(0.2))
        self._chosen = set(self._rng.permutation(stages)[:size].tolist())
        self.count = 0

    def data(self, data):
        """The bytes, perhaps spoilt."""
        return self._perhaps(_spoil_bytes, data)

    def text(self, text):
        """The text, perhaps spoilt; it may have lone surrogates then, as a command line may."""
        return self._perhaps(_spoil_text, text)

    def document(self, text):
        """The bytes of a text file, perhaps spoilt as text or as bytes."""
        return self._perhaps(_spoil_document, text.encode())

    def value(self, value):
        """The nested dictionaries and lists, perhaps with other values or keys in them."""
        return self._perhaps(_spoil_value, value)

    def _perhaps(self, spoil, piece):
        chosen = self.count in self._chosen
        self.count += 1
        return spoil(self._rng, piece) if chosen else piece

    def _chance(self, probability):
        return bool(self._rng.random() < probability)


def _choose(rng, options):
    return options[int(rng.integers(len(options)))]


def _position(rng, length):
    return int(rng.integers(length + 1))


def _chunk(rng, data):
    """Start and end of a piece, most often a short one."""
    start = _position(rng, len(data))
    longest = _choose(rng, [1, 4, 16, 512, len(data)])
    return start, min(len(data), start + int(rng.integers(1, longest + 2)))


def _flip_bit(rng, data):
    if data:
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return data


def _set_byte(rng, data):
    if data:
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
    return data


def _set_extreme(rng, data):
    """Overwrites 1, 2, 4 or 8 bytes by an integer at which sizes overflow."""
    size, start = _choose(rng, [1, 2, 4, 8]), _position(rng, len(data))
    number = _choose(rng, _EXTREMES) % 256**size
    data[start : start + size] = number.to_bytes(size, _choose(rng, ["little", "big"]))
    return data


def _truncate(rng, data):
    return data[: _position(rng, len(data))]


def _insert(rng, data):
    start = _position(rng, len(data))
    return data[:start] + rng.bytes(_choose(rng, [1, 4, 64])) + data[start:]


def _delete(rng, data):
    start, end = _chunk(rng, data)
    return data[:start] + data[end:]


def _duplicate(rng, data):
    start, end = _chunk(rng, data)
    return data[:end] + data[start:end] * _choose(rng, [1, 1, 2, 50]) + data[end:]


def _splice(rng, data):
    """Copies a chunk over, or into, another place."""
    start, end = _chunk(rng, data)
    place = _position(rng, len(data))
    rest = place + (end - start) * _choose(rng, [0, 1])
    return data[:place] + data[start:end] + data[rest:]


def _fill(rng, data):
    start, end = _chunk(rng, data)
    data[start:end] = _choose(rng, [b"\0", b"\xff", b"0", b" "]) * (end - start)
    return data


def _replace_number(rng, data):
    """Replaces digits of text, as headers of tar and npy files have them."""
    numbers = list(re.finditer(rb"\d+", data))
    if numbers:
        which = _choose(rng, numbers)
        data[which.start() : which.end()] = _choose(rng, _TOKENS).encode(errors="surrogateescape")
    return data


_BYTE_MUTATIONS = [
    *(_flip_bit, _set_byte, _set_extreme, _truncate, _insert, _delete, _duplicate, _splice),
    *(_fill, _replace_number),
]


def _spoil_bytes(rng, data):
    data = bytearray(data)
    for _ in range(_choose(rng, [1, 1, 1, 2, 3, 8])):
        data = bytearray(_choose(rng, _BYTE_MUTATIONS)(rng, data))
    return bytes(data)


def _spoil_text(rng, text):
    tokens = re.findall(r"\w+|\W", text)
    for _ in range(_choose(rng, [1, 1, 1, 2, 4])):
        place = _position(rng, len(tokens))
        token = _choose(rng, [*_TOKENS, *tokens])
        match _choose(rng, ["replace", "replace", "insert", "delete", "swap", "cut"]):
            case "replace":
                tokens[place : place + 1] = [token]
            case "insert":
                tokens.insert(place, token)
            case "delete":
                del tokens[place : place + 1]
            case "swap":
                tokens[place : place + 2] = reversed(tokens[place : place + 2])
            case "cut":
                del tokens[place:]
    return "".join(tokens)


def _spoil_document(rng, data):
    if rng.random() < 0.3:
        return _spoil_bytes(rng, data)
    return _spoil_text(rng, data.decode()).encode(errors="surrogatepass")


def _spoil_value(rng, value):
    """Replaces, adds or removes one part at any depth."""
    inner = isinstance(value, dict | list) and len(value) and rng.random() < 0.85
    if not inner:
        return _nested(rng) if rng.random() < 0.1 else _choose(rng, _VALUES)
    copy = value.copy()
    keys = list(copy) if isinstance(copy, dict) else range(len(copy))
    key = _choose(rng, keys)
    match _choose(rng, ["descend", "descend", "descend", "delete", "add"]):
        case "descend":
            copy[key] = _spoil_value(rng, copy[key])
        case "delete":
            del copy[key]
        case "add" if isinstance(copy, dict):
            copy[_choose(rng, [*keys, "new", "", 1, None, (1,), "a\nb"])] = _choose(rng, _VALUES)
        case "add":
            copy.append(_choose(rng, _VALUES))
    return copy


def _nested(rng):
    """A value so deep that walking it recursively fails."""
    value, kind = [], int(rng.integers(2))
    for _ in range(3000):
        value = {"a": value} if kind else [value]
    return value

"""Reads pickles without Python's unpickler: nothing in them is ever executed.

`pickletools` decodes the instructions and a machine of two dozen of them builds plain values.
The few globals that a `Vocabulary` permits never resolve to anything real: a call of one, and the
state that it is given, are merely recorded (`Call`). Only calls that stand for plain data, such as
`_codecs.encode(text, "latin1")`, how Python 3 spells bytes in protocol 2, become that at once.
Time and memory stay proportional to the size of the file, whatever is in it.

The vocabulary here is that of CIFAR10's batches, whose arrays `as_uint8_matrix` builds from the
record.
"""

import io
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

RECONSTRUCT, NDARRAY, DTYPE, ENCODE = "_reconstruct", "ndarray", "dtype", "encode"

# A genuine batch has 50,000 instructions: 10,000 labels and as many file names, with their memos.
MAX_INSTRUCTIONS = 1_000_000

# Genuine keys are words such as "batch_label". Two long equal ones, recalled from the memo over and
# over, would be compared in full each time.
MAX_KEY_LENGTH = 100

_ABSENT = object()  # in the memo, where a number was left out


class PickleRefusedError(Exception):
    """The pickle is damaged, or holds something that its vocabulary has no use for."""


@dataclass(frozen=True)
class Global:
    """A permitted global: only its name."""

    name: str


@dataclass
class Call:
    """The record of a call of a permitted global, which did not take place."""

    function: str
    arguments: tuple
    state: Any = None


@dataclass(frozen=True)
class PersistentId:
    """The record of a reference to something outside the pickle."""

    value: Any


@dataclass(frozen=True)
class Vocabulary:
    """What a kind of pickle may contain besides plain values.

    Attributes:
        globals: Names for the records of the permitted globals, by module and name.
        plain: What a call is, by such a name, if it is to become a plain value at once: called
            with the machine and the arguments.
        persistent: Whether there may be references to something outside.
        dict_state: Whether a dictionary may be given a state, which is dropped.
    """

    globals: Mapping[tuple[str, str], str]
    plain: Mapping[str, Callable[["_Machine", tuple], Any]] = field(default_factory=dict)
    persistent: bool = False
    dict_state: bool = False


def load(data: bytes, vocabulary: Vocabulary | None = None) -> Any:
    """Decodes a pickle of protocol 2 to 4 to plain values.

    Args:
        data: the pickle; Python 2's `str` comes out as `bytes`, Python 3's as `str`.
        vocabulary: what it may contain; by default what CIFAR10's batches do.

    Returns:
        Dictionaries (with `str` or `bytes` keys), lists, tuples, numbers, strings, bytes, and
        `Global`, `Call` and `PersistentId` records.

    Raises:
        PickleRefusedError: on anything else.
    """
    return load_next(io.BytesIO(data), len(data), vocabulary)


def load_next(stream: BinaryIO, size: int, vocabulary: Vocabulary | None = None) -> Any:
    """Decodes the pickle at a stream's position, and leaves the stream behind its end.

    Args:
        stream: seekable.
        size: number of bytes that the pickle has at most.
        vocabulary: see `load`.

    Returns, Raises: see `load`.
    """
    machine = _Machine(size, vocabulary or CIFAR10_BATCHES)
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if number >= MAX_INSTRUCTIONS:
                raise PickleRefusedError(f"more than {MAX_INSTRUCTIONS:,} instructions")
            if opcode.name not in _HANDLERS:
                raise PickleRefusedError(f"instruction {opcode.name}; protocol 2 to 4 is read")
            _HANDLERS[opcode.name](machine, argument)
    except (ValueError, OverflowError) as error:  # from pickletools: truncated, malformed
        raise PickleRefusedError(f"damaged: {str(error)[:200]}") from error
    return machine.result()


class _Machine:
    """The stack, the marks on it and the memo of a pickle of `size` bytes in progress."""

    def __init__(self, size: int, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self.stack: list[Any] = []
        self.marks: list[int] = []
        # A list, since the keys of a dictionary can be chosen so that every look-up is slow.
        self.memo: list[Any] = []
        self.encodable = size  # how many characters may still become bytes

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        return self.pop_many(1)[0]

    def pop_many(self, count: int) -> list[Any]:
        """Pops `count` values from above the last mark, in the order of their pushing."""
        start = len(self.stack) - count
        if start < (self.marks[-1] if self.marks else 0):
            raise PickleRefusedError("damaged: too few values on the stack")
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def pop_to_mark(self) -> list[Any]:
        """Pops all values above the last mark, and the mark."""
        if not self.marks:
            raise PickleRefusedError("damaged: no mark on the stack")
        values = self.pop_many(len(self.stack) - self.marks[-1])
        self.marks.pop()
        return values

    def top(self, kind: type) -> Any:
        """Returns the topmost value, left in place, after checking its type."""
        value = self.pop()
        self.push(value)
        if not isinstance(value, kind):
            raise PickleRefusedError(f"a {type(value).__name__} where a {kind.__name__} belongs")
        return value

    def memoize(self, index: int | None) -> None:
        """Memoises the topmost value, by default behind the last memo."""
        index = len(self.memo) if index is None else index
        if index > MAX_INSTRUCTIONS:  # writers count the memos from 0 or 1
            raise PickleRefusedError(f"damaged: memo {index:,}")
        self.memo.extend([_ABSENT] * (index + 1 - len(self.memo)))
        self.memo[index] = self.top(object)

    def recall(self, index: int) -> None:
        if index >= len(self.memo) or self.memo[index] is _ABSENT:
            raise PickleRefusedError(f"damaged: no memo {index}")
        self.push(self.memo[index])

    def push_global(self, module: Any, name: Any) -> None:
        # Checked first: any other type might be unhashable, or costly to hash.
        if not (isinstance(module, str) and isinstance(name, str)):
            raise PickleRefusedError("a global whose name is not a string")
        if (module, name) not in self.vocabulary.globals:
            raise PickleRefusedError(f"global {f'{module}.{name}'[:100]!r} is not allowed")
        self.push(Global(self.vocabulary.globals[module, name]))

    def call(self) -> None:
        function, arguments = self.pop_many(2)
        if not (isinstance(function, Global) and isinstance(arguments, tuple)):
            raise PickleRefusedError("a call of something that is not a permitted global")
        make = self.vocabulary.plain.get(function.name)
        self.push(make(self, arguments) if make else Call(function.name, arguments))

    def encode(self, arguments: tuple) -> bytes:
        """Resolves the one call that stands for plain data: `_codecs.encode(text, "latin1")`."""
        match arguments:
            case (str(text), "latin1" | "latin-1"):
                # A writer encodes each text once. Recalled from the memo, one large text could
                # make any number of copies of itself, at a few bytes of pickle each.
                self.encodable -= len(text)
                if self.encodable < 0:
                    raise PickleRefusedError("_codecs.encode makes more bytes than the pickle has")
                return text.encode("latin-1")  # load() expects its UnicodeEncodeError, a ValueError
        raise PickleRefusedError("a call of _codecs.encode that does not make bytes")

    def set_state(self) -> None:
        state = self.pop()
        if self.vocabulary.dict_state and isinstance(self.top(object), dict):
            return
        call = self.top(Call)
        if call.state is not None:
            raise PickleRefusedError("a state is set twice")
        call.state = state

    def refer(self) -> None:
        if not self.vocabulary.persistent:
            raise PickleRefusedError("instruction BINPERSID, a reference to something outside")
        self.push(PersistentId(self.pop()))

    def set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise PickleRefusedError("damaged: a dictionary key without a value")
        dictionary = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing a nested tuple can take exponential time, or exhaust the C stack.
            if not isinstance(key, str | bytes):
                raise PickleRefusedError(f"a dictionary key of type {type(key).__name__}")
            if len(key) > MAX_KEY_LENGTH:
                raise PickleRefusedError(f"a dictionary key of length {len(key):,}")
            dictionary[key] = value

    def result(self) -> Any:
        if len(self.stack) != 1 or self.marks:
            raise PickleRefusedError("damaged: values left on the stack")
        return self.stack[0]


def _push_argument(machine: _Machine, argument: Any) -> None:
    machine.push(argument)


def _python2_string(machine: _Machine, argument: str) -> None:
    machine.push(argument.encode("latin-1"))  # pickletools decoded it so


def _constant(make: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.push(make())


def _tuple(size: int) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.push(tuple(machine.pop_many(size)))


def _nothing(machine: _Machine, _: Any) -> None:
    pass


def _extend(machine: _Machine, values: list[Any]) -> None:
    machine.top(list).extend(values)


_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _nothing),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), _push_argument),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE"), _push_argument),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES"), _push_argument),
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), _python2_string),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), lambda m, index: m.memoize(index)),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda m, index: m.recall(index)),
    "NONE": _constant(lambda: None),
    "NEWTRUE": _constant(lambda: True),
    "NEWFALSE": _constant(lambda: False),
    "EMPTY_DICT": _constant(dict),
    "EMPTY_LIST": _constant(list),
    "EMPTY_TUPLE": _constant(tuple),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "TUPLE": lambda m, _: m.push(tuple(m.pop_to_mark())),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "APPEND": lambda m, _: _extend(m, [m.pop()]),
    "APPENDS": lambda m, _: _extend(m, m.pop_to_mark()),
    "SETITEM": lambda m, _: m.set_items(m.pop_many(2)),
    "SETITEMS": lambda m, _: m.set_items(m.pop_to_mark()),
    "GLOBAL": lambda m, name: m.push_global(*name.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.push_global(*m.pop_many(2)),
    "REDUCE": lambda m, _: m.call(),
    "BINPERSID": lambda m, _: m.refer(),
    "BUILD": lambda m, _: m.set_state(),
}


CIFAR10_BATCHES = Vocabulary(
    globals={
        ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,  # NumPy 1
        ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,  # NumPy 2
        ("numpy", "ndarray"): NDARRAY,
        ("numpy", "dtype"): DTYPE,
        ("_codecs", "encode"): ENCODE,
    },
    plain={ENCODE: _Machine.encode},
)


def as_uint8_matrix(value: Any, columns: int) -> np.ndarray:
    """Builds the array whose pickling `value` records.

    Args:
        value: a `Call`, as NumPy's `ndarray.__reduce__` describes an array.
        columns: the number of columns it must have.

    Returns:
        uint8 `[n, columns]`, n >= 1, read-only; of either memory order.

    Raises:
        PickleRefusedError: not the record of such an array.
    """
    if not (isinstance(value, Call) and value.function == RECONSTRUCT):
        raise PickleRefusedError("the data is not a NumPy array")
    if value.arguments[:1] != (Global(NDARRAY),):
        raise PickleRefusedError("the data is an unknown kind of NumPy array")
    if not (isinstance(value.state, tuple) and len(value.state) == 5):
        raise PickleRefusedError("the array has no contents")
    _, shape, dtype, fortran_order, raw = value.state
    _check_uint8(dtype)
    rows = _row_count(shape, columns)
    if not isinstance(fortran_order, int) or fortran_order not in (0, 1):
        raise PickleRefusedError("the array's memory order is neither C nor Fortran")
    if not isinstance(raw, bytes):
        raise PickleRefusedError("the array's contents are not bytes")
    if len(raw) != rows * columns:
        raise PickleRefusedError(
            f"the array [{rows}, {columns}] has {len(raw):,} bytes instead of {rows * columns:,}"
        )
    array = np.frombuffer(raw, np.uint8)
    return array.reshape(columns, rows).T if fortran_order else array.reshape(rows, columns)


def _check_uint8(dtype: Any) -> None:
    """Accepts the record of `dtype("u1")` alone."""
    is_dtype = isinstance(dtype, Call) and dtype.function == DTYPE and len(dtype.arguments) == 3
    if not (is_dtype and isinstance(dtype.arguments[0], str | bytes)):
        raise PickleRefusedError("the array has no data type")
    if dtype.arguments[0] not in ("u1", b"u1"):
        raise PickleRefusedError(f"the array's data type is {dtype.arguments[0][:20]!r}, not 'u1'")
    # (version, byte order, subarray, names, fields, size, alignment, flags)
    state = dtype.state
    if state is not None and not (
        isinstance(state, tuple) and len(state) == 8 and all(part is None for part in state[2:5])
    ):
        raise PickleRefusedError("the array's data type is not plain 'u1'")


def _row_count(shape: Any, columns: int) -> int:
    is_shape = isinstance(shape, tuple) and all(type(size) is int for size in shape)
    if not is_shape or len(shape) != 2 or shape[1] != columns or shape[0] < 1:
        # Shortened first: a million references to one 600-digit number are a small pickle.
        sizes = str(shape[:4])[:60] if is_shape else "nonsense"
        raise PickleRefusedError(f"the array's shape is {sizes} instead of (n, {columns})")
    return shape[0]

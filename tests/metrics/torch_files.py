"""Writes files as `torch.save` does, byte by byte: without PyTorch."""

import io
import pickle
import zipfile

import numpy as np

STORAGES = {"float32": "FloatStorage", "float64": "DoubleStorage", "int64": "LongStorage"}
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}


def text(value):
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def number(value):
    return b"J" + value.to_bytes(4, "little", signed=True)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(array, key, *, older=False, storage=None, offset=0, size=None, stride=None):
    """The pickle of a tensor of a storage; everything about it may be told differently."""
    storage = storage or STORAGES[array.dtype.name]
    reference = b"(" + text("storage") + b"ctorch\n" + storage.encode() + b"\n"
    reference += text(key) + text("cpu") + number(array.size) + (b"N" if older else b"") + b"tQ"
    strides = array.strides if array.flags.f_contiguous else np.ascontiguousarray(array).strides
    stride = [step // array.itemsize for step in strides] if stride is None else stride
    shape = numbers(array.shape if size is None else size) + numbers(stride)
    hooks = b"ccollections\nOrderedDict\n)R"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + reference + number(offset) + shape + b"\x89" + hooks + b"tR"
    )  # fmt: skip


def dictionary(tensors):
    """The pickle of an OrderedDict of these, with a state as `Module.state_dict` gives it."""
    state = b"}" + text("_metadata") + b"}sb"
    items = b"".join(text(name) + pickled for name, pickled in tensors.items())
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + items + b"u" + state + b"."


def contents(array):
    """The numbers as a storage has them: of a transposed matrix, untransposed."""
    return array.tobytes("A")


def zip_file(arrays, pickled=None, compression=zipfile.ZIP_STORED, extra=()):
    """The form of PyTorch 1.6 and later."""
    keys = {name: str(number) for number, name in enumerate(arrays)}
    tensors = {name: tensor(array, keys[name]) for name, array in arrays.items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled or dictionary(tensors))
        archive.writestr("archive/byteorder", b"little")
        for name, array in arrays.items():
            archive.writestr(f"archive/data/{keys[name]}", contents(array))
        archive.writestr("archive/version", b"3\n")
        for name, data in extra:
            archive.writestr(name, data)
    return buffer.getvalue()


def stream_file(arrays, pickled=None, system=SYSTEM):
    """The form before it."""
    keys = {name: str(number) for number, name in enumerate(arrays)}
    tensors = {name: tensor(array, keys[name], older=True) for name, array in arrays.items()}
    parts = [pickle.dumps(value, protocol=2) for value in (MAGIC, PROTOCOL, system)]
    parts += [pickled or dictionary(tensors), pickle.dumps(list(keys.values()), protocol=2)]
    for array in arrays.values():
        parts += [np.int64(array.size).tobytes(), contents(array)]
    return b"".join(parts)

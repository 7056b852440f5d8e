"""The parsers that are fed with spoilt input, and the valid input of each.

A feed is a function `(box, spoiler)`: it builds an input in the folder `box`, letting the spoiler
have every layer on the way, and reads it as the program does. Unspoilt input must be read; that of
the functions called `hostile...` must be refused.
"""

import contextlib
import functools
import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from common import command_line, evaluate
from common.configuration.sweep import expand
from common.data import open_source, tfds_route
from common.data.folder import FolderSource
from common.errors import UserError
from common.exit_status import EXIT_OK, EXIT_USER_ERROR
from common.metrics import cache, file_memory
from common.metrics.frechet import GaussianStatistics, frechet_distance
from common.metrics.image_sets import open_files
from common.metrics.inception import MEMBER_NAME, open_inception
from common.parsers.archives import TarMember
from common.parsers.decoding import decode
from common.parsers.torch_weights import read_state_dict
from common.preparation.celeba import decode_celeba
from common.preparation.members import decode_members
from common.preparation.program import main as preprocess
from common.preparation.transforms import imagenet_image
from common.results.events import EventLog
from common.results.metrics_table import MetricsTable
from common.results.run_folder import RunFolder
from common.results.times import drop_times_after, training_seconds
from common.training.checkpoints import Checkpoints
from common.training.devices import is_chief
from common.training.trained_run import TrainedRun, recorded_metrics
from tests.configuration.variants import GLOBAL, NO_GAMMA, RESNET, RESNET_JOB, config_of
from tests.data import archives
from tests.faults import table_files
from tests.metrics import torch_files
from tests.metrics.graphs import small_inception
from tests.preparation import archives as preparation
from tests.preparation.scripts import load
from tests.training.small import small_settings

# CIFAR10


def cifar10(box, spoiler):
    """The archive, spoilt as a pickle, a header, a tar stream or a gzip file."""
    batches = [archives.python2_batch(archives.rows(2, number)) for number in range(5)]
    _read_cifar10(box, spoiler, [spoiler.data(batch) for batch in batches])


def hostile_cifar10(box, spoiler):
    """A pickle that runs a command when it is loaded."""
    data = spoiler.data(f"cos\nmkdir\n(S'{box.parent}/executed'\ntR.".encode())
    _read_cifar10(box, spoiler, [data] * 5)


def _read_cifar10(box, spoiler, batches):
    files = dict(zip(archives.NAMES, batches, strict=True))
    path = box / "CIFAR10" / "cifar-10-python.tar.gz"
    path.parent.mkdir()
    path.write_bytes(_gzipped(spoiler, _tar(spoiler, files)))
    source = open_source("cifar10", box, "archive")
    source.read(np.arange(len(source)))
    _ = source.labels


# npy files


def npy(box, spoiler):
    """A whole data set in one file."""
    path = box / "STL10" / "stl10.npy"
    path.parent.mkdir()
    path.write_bytes(spoiler.data(_npy(_noise(2, 48, 48, 3))))
    open_source("stl10", box, "npy", expected_images=2).read(np.arange(2))


def npy_folder(box, spoiler):
    """ImageNet's folders of one file for each image."""
    for number in range(4):
        folder = box / "data" / _as_name(spoiler.text(f"n0{number % 2}"))
        folder.mkdir(parents=True, exist_ok=True)
        name = _as_name(spoiler.text(f"n0_{number}.npy"))
        (folder / name).write_bytes(spoiler.data(_npy(_noise(8, 8, 3))))
    source = FolderSource("imagenet", box / "data", (8, 8, 3), "Make it again.")
    source.read(np.arange(len(source)))


def tfds_sidecar(box, spoiler):
    """A file converted from tensorflow-datasets, and what is written beside it."""
    path = box / "STL10" / "stl10.tfds.npy"
    path.parent.mkdir()
    path.write_bytes(spoiler.data(_npy(_noise(2, 48, 48, 3))))
    found = {"name": "stl10", "splits": ["unlabelled"], "builder": "stl10:1.0.0", "images": 2}
    found |= {"order": "splits joined, files in sequence, not shuffled", "bytes": 13952}
    path.with_name(f"{path.name}.json").write_bytes(spoiler.document(json.dumps(found)))
    converted = UserError("it would be converted anew")
    with mock.patch.object(tfds_route, "_convert", side_effect=converted):
        open_source("stl10", box, "tfds", expected_images=2).read(np.arange(2))


def tfds_labels(box, spoiler):
    """The labels of a file converted from tensorflow-datasets."""
    path = box / "CIFAR10" / "cifar10.tfds.npy"
    path.parent.mkdir()
    path.write_bytes(_npy(_noise(2, 32, 32, 3)))
    labels = np.array([7, 0])
    path.with_name("cifar10.tfds.labels.npy").write_bytes(spoiler.data(_npy(labels)))
    found = {"name": "cifar10", "splits": ["train"], "builder": "cifar10:3.0.2", "images": 2}
    found |= {"order": "splits joined, files in sequence, not shuffled", "bytes": 6272}
    found["labels_sha256"] = hashlib.sha256(labels.tobytes()).hexdigest()
    path.with_name(f"{path.name}.json").write_bytes(spoiler.document(json.dumps(found)))
    missing = UserError("they would be taken anew")
    with (
        mock.patch.object(tfds_route, "_convert", side_effect=missing),
        mock.patch.object(tfds_route, "_add_labels", side_effect=missing),
    ):
        source = open_source("cifar10", box, "tfds", expected_images=2)
        if source.labels.tolist() != [7, 0]:
            raise AssertionError("other labels than were written")


# Preparation


def stl10(box, spoiler):
    """STL10's archive, a gzip file with a tar stream."""
    members = {
        "stl10_binary/class_names.txt": b"bird\n",
        preparation.STL10_MEMBER: bytes(3 * 96 * 96),
    }
    _prepare("STL10", box, _gzipped(spoiler, _tar(spoiler, members)), 1)


def celeba(box, spoiler):
    """CelebA's archive, a zip file of JPEGs."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(2):
            folder, _, name = spoiler.text(preparation.celeba_name(number)).partition("/")
            name = f"{_as_name(folder)}/{_as_name(name)}".encode(errors="replace").decode()
            archive.writestr(name, spoiler.data(_jpeg(218, 178)))
    _prepare("CelebA", box, spoiler.data(file.getvalue()), 2)


def imagenet(box, spoiler):
    """ImageNet's archive, a tar file of tar files of JPEGs."""
    classes = {
        f"n0{number}.tar": _tar(spoiler, {f"n0{number}_1.JPEG": spoiler.data(_jpeg(20, 24))})
        for number in range(2)
    }
    outer = spoiler.data(_tar(spoiler, classes))
    _prepare("ImageNet", box, outer, 2, "--expected_classes=2", "--size=16")


def hostile_names(box, spoiler):
    """Members that would be written elsewhere."""
    inner = _tar(spoiler, {"../../../n0_1.JPEG": _jpeg(20, 24)})
    _prepare("ImageNet", box, _tar(spoiler, {"n0.tar": inner}), 1, "--expected_classes=1")


def _prepare(name, box, data, count, *options):
    """Runs a script of `dataset_preprocess`, with threads for processes, which start sooner."""
    script = load(name)
    (box / "archive").write_bytes(data)
    arguments = [f"--input={box}/archive", f"--output={box}/made", "--workers=1"]
    arguments += [f"--expected_images={count}", *options]
    with mock.patch.object(script, "worker_processes", ThreadPoolExecutor, create=True):
        _end(preprocess, script.PREPARATION, box, ["preprocess.py", *arguments])


# Images


def jpeg(box, spoiler):
    """A JPEG of CelebA."""
    _decode(box, spoiler.data(_jpeg(218, 178)), decode_celeba)


def progressive_jpeg(box, spoiler):
    """A progressive JPEG of ImageNet, turned by EXIF."""
    _decode(box, spoiler.data(_jpeg(20, 24, progressive=True, orientation=6)), _imagenet_image)


def cmyk_jpeg(box, spoiler):
    """One of ImageNet's few in CMYK."""
    _decode(box, spoiler.data(_jpeg(20, 24, mode="CMYK")), _imagenet_image)


def png(box, spoiler):
    """A PNG, spoilt before its checksums or after."""
    _decode(box, _png(spoiler), _imagenet_image)


def _imagenet_image(data):
    return decode(data, functools.partial(imagenet_image, size=16))


def _decode(box, data, make):
    path = box / "archive"
    path.write_bytes(data)
    member = TarMember("image", "class", "stem", 0, len(data))
    for _ in decode_members(make, False, path, [member]):
        pass


# The Inception network


def inception_graph(box, spoiler):
    """The frozen graph, spoilt node by node."""
    (box / "graph.pb").write_bytes(b"".join(_field(spoiler.data(node)) for node in _graph_nodes()))
    open_inception(box / "graph.pb", cache_dir=box)


def inception_archive(box, spoiler):
    """The archive of the frozen graph."""
    graph = b"".join(map(_field, _graph_nodes()))
    (box / "graph.tar.gz").write_bytes(_gzipped(spoiler, _tar(spoiler, {MEMBER_NAME: graph})))
    open_inception(box / "graph.tar.gz", cache_dir=box)


def inception_memory(box, spoiler):
    """What is remembered of the files that were used."""
    path = box / "graph.pb"
    (box / file_memory.MEMORY_NAME).write_bytes(spoiler.document(json.dumps({str(path): "0" * 64})))
    file_memory.check_file(path, {"graph.pb": "0" * 64}, None, box)
    file_memory.remember_file(path, "1" * 64, box)


def torch_zip(box, spoiler):
    """PyTorch's weights in the newer form."""
    del box
    tensors = {n: torch_files.tensor(a, str(i)) for i, (n, a) in enumerate(_WEIGHTS.items())}
    pickled = spoiler.data(torch_files.dictionary(tensors))
    read_state_dict(spoiler.data(torch_files.zip_file(_WEIGHTS, pickled)))


def torch_stream(box, spoiler):
    """PyTorch's weights in the older form."""
    del box
    read_state_dict(spoiler.data(torch_files.stream_file(_WEIGHTS)))


def hostile_torch(box, spoiler):
    """Weights whose pickle runs a command when it is loaded."""
    pickled = b"\x80\x02cos\nmkdir\n(X\x40\0\0\0" + f"{box.parent}/executed".encode()[:64] + b"tR."
    read_state_dict(spoiler.data(torch_files.zip_file(_WEIGHTS, spoiler.data(pickled))))


# Sets of images and statistics


def image_folder(box, spoiler):
    """A folder of images."""
    (box / "set" / "inner").mkdir(parents=True)
    for number, data in enumerate([_png(spoiler), spoiler.data(_jpeg(12, 10))]):
        kind = ("png", "jpg")[number]
        name = _as_name(spoiler.text(f"{number}.{kind}"))
        (box / "set" / "inner" / name).write_bytes(data)
    _read_set(box / "set")


def image_zip(box, spoiler):
    """A zip archive of images."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/0.png", _png(spoiler))
        archive.writestr("a/1.bmp", spoiler.data(_encoded("BMP")))
    (box / "set.zip").write_bytes(spoiler.data(file.getvalue()))
    _read_set(box / "set.zip")


def image_tar(box, spoiler):
    """A tar archive of images."""
    (box / "set.tar").write_bytes(spoiler.data(_tar(spoiler, _image_files(spoiler))))
    _read_set(box / "set.tar")


def image_tar_gz(box, spoiler):
    """A compressed tar archive of images."""
    (box / "set.tgz").write_bytes(_gzipped(spoiler, _tar(spoiler, _image_files(spoiler))))
    _read_set(box / "set.tgz")


def image_npy(box, spoiler):
    """An array of images."""
    (box / "set.npy").write_bytes(spoiler.data(_npy(_noise(2, 6, 5, 3))))
    _read_set(box / "set.npy")


def image_npz(box, spoiler):
    """A compressed archive of arrays."""
    (box / "set.npz").write_bytes(_npz(spoiler, {"arr_0": _noise(2, 6, 5, 3)}))
    _read_set(box / "set.npz")


def statistics(box, spoiler):
    """Stored mean and covariance."""
    arrays = {"mu": np.zeros(3), "sigma": np.eye(3), "count": np.array(9)}
    (box / "set.npz").write_bytes(_npz(spoiler, arrays, zipfile.ZIP_STORED))
    found = open_files(box / "set.npz")
    if isinstance(found, GaussianStatistics) and len(found.mean) == 3:
        frechet_distance(found, GaussianStatistics(np.ones(3), 2 * np.eye(3), 9))


def hostile_npz(box, spoiler):
    """A pickle for an array."""
    array = np.array([_Executed(f"{box.parent}/executed")], object)
    (box / "set.npz").write_bytes(_npz(spoiler, {"arr_0": array}))
    _read_set(box / "set.npz")


def hostile_bomb(box, spoiler):
    """An archive of arrays a thousand times smaller than what is in it."""
    (box / "set.npz").write_bytes(spoiler.data(_bomb()))
    _read_set(box / "set.npz")


def hostile_image(box, spoiler):
    """An image in a format that Pillow would have another program read."""
    (box / "set").mkdir()
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    (box / "set" / "0.png").write_bytes(spoiler.data(data))
    _read_set(box / "set")


def hostile_large_image(box, spoiler):
    """A black image of 169 million pixels in 21 kB."""
    (box / "set").mkdir()
    (box / "set" / "0.png").write_bytes(spoiler.data(_large_png()))
    _read_set(box / "set")


def _read_set(path):
    found = open_files(path)
    if not isinstance(found, GaussianStatistics):
        found.read(np.arange(min(len(found), 100)))


def cached_arrays(box, spoiler):
    """The cache of statistics: a damaged file is made anew."""
    path, key = box / "cached.npz", {"real": 5}
    expected = {"mean": np.arange(3.0), "covariance": np.eye(3)}
    cache.write_arrays(path, key, expected)
    path.write_bytes(spoiler.data(path.read_bytes()))
    found = cache.load_or_compute(path, key, lambda: expected)
    if cache.content_digest(found) != cache.content_digest(expected):
        raise AssertionError("the cache gave other arrays than were written")


# Checkpoints


def checkpoint_files(box, spoiler):
    """All files of a checkpoint."""
    for name, data in _checkpoint()[1].items():
        (box / name).write_bytes(spoiler.data(data))
    _restore(box)


def checkpoint_index(box, spoiler):
    """The index of a checkpoint, spoilt before its checksums."""
    files = dict(_checkpoint()[1])
    blocks, footer = table_files.split_blocks(files["model-7.index"])
    files["model-7.index"] = table_files.join_blocks(map(spoiler.data, blocks), footer)
    for name, data in files.items():
        (box / name).write_bytes(data)
    _restore(box)


def checkpoint_progress(box, spoiler):
    """What a checkpoint says of the run's progress."""
    events = {"events.out.tfevents.1": 9}
    text = spoiler.document(json.dumps({"global_id": 7, "written": {"events": events}}))
    progress = tf.Variable(text, dtype=tf.string)
    tf.train.Checkpoint(progress=progress, **_checkpoint()[0]).write(str(box / "model-7"))
    for name in [*events, "events.out.tfevents.2"]:
        (box / name).write_bytes(bytes(20))
    _, written = _restore(box)
    EventLog(box).rewind(written.get("events", {}))


def checkpoint_names(box, spoiler):
    """A checkpoint, its state file, and another of a strange name, with nothing in it."""
    for name, data in _checkpoint()[1].items():
        (box / name).write_bytes(data)
    (box / "checkpoint").write_bytes(spoiler.document('model_checkpoint_path: "model-7"\n'))
    (box / _as_name(spoiler.text("model-9.index"))).write_bytes(b"")
    _restore(box)


def _restore(folder):
    trackables, _ = _checkpoint()
    return Checkpoints(folder, **trackables).restore()


@functools.cache
def _checkpoint():
    """A small model with its optimiser, and the files of its checkpoint: `{name: bytes}`."""
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(2)])
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    trackables = {"model": model, "optimizer": optimizer}
    with tempfile.TemporaryDirectory() as folder:
        Checkpoints(folder, **trackables).save(7, {"events": {}})
        return trackables, {p.name: p.read_bytes() for p in Path(folder).iterdir()}


# A run's other files


def run_record(box, spoiler):
    """`run.json`, as read by training and by `python -m common.evaluate`."""
    settings, conditions = small_settings(NO_GAMMA), {"data": {}, "replicas": 1}
    network = {"name": "inception", "sha256": "0" * 64}
    conditions["metrics"] = {"network": network, "columns": ["fid"]}
    folder = RunFolder(box / "run")
    folder.path.mkdir()
    folder.start(settings, conditions, {})
    folder.record_path.write_bytes(spoiler.document(folder.record_path.read_text()))
    assert folder.state in ("running", "done")
    recorded_metrics(TrainedRun(folder.path))
    RunFolder(folder.path).start(settings, conditions, {})


def metrics_table(box, spoiler):
    """`metrics.csv` and `metrics.json`."""
    table = MetricsTable(box / "metrics.csv", ["fid", "kid_mean"])
    for global_id in (-1, 9, 19):
        table.add(global_id, {"fid": 1.5, "kid_mean": float("nan")}, {"seed": 1})
    for path in (table.path, table.records_path):
        path.write_bytes(spoiler.document(path.read_bytes().decode()))
    table = MetricsTable(box / "metrics.csv", ["fid", "kid_mean"])
    for global_id in table.ids:
        table.row(global_id)
    table.drop_after(9)
    table.add(19, {"fid": 2.5, "kid_mean": 0.5})


def times(box, spoiler):
    """`time.txt`."""
    lines = [f"iter {i} {{}}: 2026-01-02 03:04:0{i}.000000\n" for i in (0, 9)]
    text = "".join(line.format(event) for line in lines for event in ("starts", "ends"))
    (box / "time.txt").write_bytes(spoiler.document(text))
    training_seconds(box / "time.txt")
    drop_times_after(box / "time.txt", 5)


# Configuration


def configuration(box, spoiler):
    """`config.py` of a CNN."""
    config = config_of({"scale": [1.0, 1.2]}, {"sn_mode": ["BSN"]})
    _end(command_line.main, NO_GAMMA, spoiler.value(config), box, ["main.py", "--dry_run"])


def resnet_configuration(box, spoiler):
    """`config.py` of a ResNet, with all that the scheduler knows."""
    scheduler = {"gpu": [["0", "1"]], "log_file": "w.log", "force_rerun": False}
    scheduler |= {"result_root_folder": "r", "ignored_keys_for_folder_name": ["run"]}
    shared = {key: value for key, value in RESNET_JOB.items() if key in GLOBAL}
    swept = {key: [value] for key, value in RESNET_JOB.items() if key not in GLOBAL}
    config = {"scheduler_config": scheduler, "global_config": shared, "test_config": [swept]}
    _end(command_line.main, RESNET, spoiler.value(config), box, ["main.py", "--dry_run"])


def set_and_only(box, spoiler):
    """Values of `--set` and `--only`."""
    del box
    changes = ["iteration=20", "g_lr=1e-3", "dataset=stl10", "restore=true", "gpu=0+1,2"]
    overrides = [spoiler.text(text) for text in changes]
    expand(NO_GAMMA, config_of(), overrides, [spoiler.text("run=0"), spoiler.text("scale=1.0")])


def options(box, spoiler):
    """The command line of `main.py`."""
    texts = ["--only=run=0", "--set=iteration=5", "--metrics=is,fid", "--data_route", "npy"]
    arguments = [*map(spoiler.text, texts), f"--data_dir={box}", "--dry_run"]
    _end(command_line.main, NO_GAMMA, config_of(), box, ["main.py", *arguments])


def hostile_evaluate_options(box, spoiler):
    """The command line of `python -m common.evaluate`, of a set that is not there."""
    texts = ["--metrics=is", "--protocol=bsn", "--seed", "7", "--samples=9", "--batch_size=2"]
    texts = [t for t in map(spoiler.text, texts) if not os.path.exists(t)]  # "/" is a large set
    _end(evaluate.main, ["evaluate", *texts, str(box / "none.zip")])


def hostile_prepare_options(box, spoiler):
    """The command line of a `preprocess.py`, of an archive that is not there."""
    texts = ["--size=9", "--workers", "1", "--expected_images=3", "--on_error=skip"]
    script, missing = load("CelebA"), f"--input={box}/none.zip"
    _end(preprocess, script.PREPARATION, box, ["main", *map(spoiler.text, texts), missing])


def tf_config(box, spoiler):
    """`TF_CONFIG` in the environment."""
    del box
    text = '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 0}}'
    with mock.patch.dict(os.environ, TF_CONFIG=spoiler.text(text)):
        is_chief()


def _end(main, *arguments):
    """Runs a command line; what it prints of an error is raised as one."""
    with (
        contextlib.redirect_stderr(io.StringIO()) as errors,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        status = main(*arguments)
    if status == EXIT_USER_ERROR:
        raise UserError(errors.getvalue().partition("error: ")[2].removesuffix("\n"))
    if status != EXIT_OK:
        raise AssertionError(f"exit status {status}")


# Pieces


class _Executed:
    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return os.mkdir, (self._path,)


_WEIGHTS = {"a.weight": np.ones((3, 2), np.float32), "b.bias": np.arange(4.0)}


def _noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _npz(spoiler, arrays, compression=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", spoiler.data(_npy(array)))
    return spoiler.data(file.getvalue())


@functools.cache
def _bomb():
    """3 GiB of images in 3 MB."""
    shape = (2**16, 128, 128, 3)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(header.getvalue()) + packer.flush(zlib.Z_FULL_FLUSH)
    packed += 2**8 * (packer.compress(bytes(2**20 * 12)) + packer.flush(zlib.Z_FULL_FLUSH))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("arr_0.npy", packed + packer.flush())
        (info,) = archive.infolist()
        info.compress_type = zipfile.ZIP_DEFLATED
        info.file_size = len(header.getvalue()) + int(np.prod(shape))
    return file.getvalue()


@functools.cache
def _large_png():
    return preparation.encode(Image.new("1", (13_000, 13_000)), "PNG")


def _tar(spoiler, files):
    """A tar archive; its headers may be spoilt, and have right checksums then too."""
    parts = []
    for name, data in files.items():
        info = tarfile.TarInfo(name)
        info.size = len(data)
        header = bytearray(spoiler.data(info.tobuf())[:512].ljust(512, b"\0"))
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        parts += [header, data, bytes(-len(data) % 512)]
    return b"".join([*parts, bytes(2 * 512)])


def _gzipped(spoiler, data):
    return spoiler.data(gzip.compress(spoiler.data(data), 1))


@functools.cache
def _jpeg(height, width, mode="RGB", **options):
    return preparation.encode(preparation.photograph(0, height, width).convert(mode), **options)


@functools.cache
def _encoded(kind):
    return preparation.encode(preparation.photograph(0, 12, 10), kind)


def _png(spoiler):
    """A PNG 12 x 10 whose parts may be spoilt, and have right checksums then too."""
    rows = b"".join(b"\0" + row.tobytes() for row in _noise(12, 10, 3))
    header = (10).to_bytes(4, "big") + (12).to_bytes(4, "big") + b"\x08\x02\0\0\0"
    chunks = {b"IHDR": spoiler.data(header), b"tEXt": spoiler.data(b"Comment\0none"),
              b"IDAT": spoiler.data(zlib.compress(spoiler.data(rows))), b"IEND": b""}  # fmt: skip
    parts = [
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        for kind, data in chunks.items()
    ]
    return spoiler.data(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def _image_files(spoiler):
    return {"a/0.png": _png(spoiler), "a/1.jpg": spoiler.data(_jpeg(12, 10))}


def _as_name(text):
    """A text as the name of a file."""
    name = text.replace("/", "_").replace("\0", "_")[:100]
    return "_" if name in ("", ".", "..") else name


@functools.cache
def _graph_nodes():
    """The nodes of a small Inception graph as bytes; its largest constant is a single number."""
    graph = small_inception()
    for node in graph.node:
        if node.name == "softmax/weights":
            node.attr["value"].tensor.ClearField("tensor_content")
            node.attr["value"].tensor.float_val.append(0.001)
    return [node.SerializeToString() for node in graph.node]


def _field(node):
    """A node's bytes as a field of a GraphDef."""
    length, prefix = len(node), b""
    while length > 127:
        prefix, length = prefix + bytes([length & 127 | 128]), length >> 7
    return b"\x0a" + prefix + bytes([length]) + node


PARSERS = {
    "cifar10": [cifar10, hostile_cifar10],
    "npy": [npy, npy_folder, tfds_sidecar, tfds_labels],
    "preparation": [stl10, celeba, imagenet, hostile_names],
    "images": [jpeg, progressive_jpeg, cmyk_jpeg, png],
    "inception": [inception_graph, inception_archive],
    "inception_memory": [inception_memory],
    "torch_weights": [torch_zip, torch_stream, hostile_torch],
    "image_sets": [image_folder, image_zip, image_tar, image_tar_gz, image_npy, image_npz],
    "hostile_images": [hostile_image, hostile_large_image, hostile_bomb, hostile_npz],
    "statistics": [statistics],
    "cache": [cached_arrays],
    "checkpoints": [checkpoint_files, checkpoint_index, checkpoint_progress, checkpoint_names],
    "run_record": [run_record],
    "metrics_table": [metrics_table],
    "times": [times],
    "configuration": [configuration, resnet_configuration],
    "set_and_only": [set_and_only],
    "options": [options, hostile_evaluate_options, hostile_prepare_options],
    "tf_config": [tf_config],
}

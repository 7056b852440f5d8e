"""The Inception network of December 2015, which published IS and FID values are computed with."""

import gzip
import hashlib
import io
import logging
import os
import tarfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from common.errors import UserError
from common.metrics import file_memory, torch_inception
from common.metrics.cache import cache_folder
from common.metrics.download import download
from common.metrics.feature_network import FeatureNetwork
from common.metrics.protocols import Protocol
from common.metrics.rows import NetworkFiles
from common.parsers import frozen_graph, torch_weights

logger = logging.getLogger(__name__)

ARCHIVE_NAME = "frozen_inception_v1_2015_12_05.tar.gz"
MEMBER_NAME = "inceptionv1_for_inception_score.pb"
ARCHIVE_URL = f"http://download.tensorflow.org/models/{ARCHIVE_NAME}"
CACHE_SUBFOLDER = "models"

# Several times the published sizes; they stop a few kilobytes from unpacking to gigabytes.
MAX_GRAPH_BYTES = 512 * 2**20
MAX_ARCHIVE_BYTES = 1024 * 2**20

_GZIP_MAGIC = b"\x1f\x8b"
_INPUT = "Mul"
_FEATURES = "pool_3"
_LOGITS = "logits"
# Of which the Inception Score uses the first 1,000.
LOGITS = 1008


# From images to `pool_3`, `logits` and, where it is known, the latter without their bias.
Body = Callable[[tf.Tensor], Sequence[tf.Tensor]]


class InceptionNetwork(FeatureNetwork):
    """The network of the frozen graph: `pool_3` as features, the first 1,000 `logits` as classes.

    Attributes:
        num_classes: Number of logits that are given, from the first on.
        with_bias: Whether the last layer's bias is part of them: of a frozen graph's `logits` it
            is what they are, of weights converted to PyTorch it is left out.
    """

    name = "inception"
    column_prefix = ""
    input_size = 299
    num_features = 2048
    num_classes = 1000

    def __init__(
        self, body: Body, sha256: str, files: dict[str, str], with_bias: bool = True
    ) -> None:
        """Checks the network by running it.

        Args:
            body: The network of images `[n, 299, 299, 3]` in [-1, 1]. Returned are features
                `[n, ..., 2048]`, logits `[n, 1008]` and, as a third, logits without bias.
            sha256: Digest of the weights.
            files: File name to SHA-256 of what was read.
            with_bias: Which of the logits are given, the second output or the third.

        Raises:
            UserError: The outputs are not the expected ones.
        """
        self._body = body
        super().__init__(sha256, files)
        self._set_logits(self.num_classes, with_bias)
        self._check_outputs()

    @classmethod
    def from_graph(cls, graph_bytes: bytes, files: dict[str, str]) -> "InceptionNetwork":
        """Rewrites and imports the published graph.

        Args:
            graph_bytes: The serialised GraphDef.
            files: File name to SHA-256 of what was read.

        Raises:
            UserError: The bytes are not the expected graph.
        """
        graph = frozen_graph.parse_graph(graph_bytes)
        wanted = [_FEATURES, _LOGITS, frozen_graph.before_bias(graph, _LOGITS)]
        rewritten, outputs = frozen_graph.rewrite(
            graph,
            _INPUT,
            [None, cls.input_size, cls.input_size, 3],
            [name for name in wanted if name],
        )
        body = frozen_graph.import_function(rewritten, _INPUT, outputs)
        return cls(body, hashlib.sha256(graph_bytes).hexdigest(), files)

    @classmethod
    def from_torch(cls, data: bytes, files: dict[str, str]) -> "InceptionNetwork":
        """Builds the same network of weights that were converted to PyTorch.

        Args:
            data: The file, as `torch.save` writes a `state_dict` in torchvision's names.
            files: File name to SHA-256 of what was read.

        Raises:
            UserError: The bytes are not such a file.
        """
        body = torch_inception.build(torch_weights.read_state_dict(data))
        return cls(body, hashlib.sha256(data).hexdigest(), files, with_bias=False)

    def with_logits(self, num_classes: int, with_bias: bool | None) -> "InceptionNetwork":
        """Returns the same network, weights shared, that gives other logits.

        Args:
            num_classes: As the attribute.
            with_bias: As the attribute; None for what it is.

        Raises:
            UserError: Logits without bias are wanted, which cannot be told from this file.
        """
        with_bias = self.with_bias if with_bias is None else with_bias
        if not with_bias and self._outputs < 3:
            raise UserError(
                "the Inception graph does not show the bias of its logits, which this protocol "
                f"leaves out; use {ARCHIVE_NAME} as published, or another protocol"
            )
        other = self.resized("TF1 bilinear")  # a compiled call of its own
        other._set_logits(num_classes, with_bias)
        return other

    def with_logits_of(self, protocol: Protocol) -> "InceptionNetwork":
        """Returns the network with the logits that a protocol counts; see the base class."""
        same_bias = protocol.with_bias in (None, self.with_bias)
        if same_bias and protocol.classes == self.num_classes:
            return self
        return self.with_logits(protocol.classes, protocol.with_bias)

    def _set_logits(self, num_classes: int, with_bias: bool) -> None:
        self.num_classes, self.with_bias = num_classes, with_bias
        bias = "with" if with_bias else "without"
        self.provenance["logits"] = f"the first {num_classes} of {LOGITS}, {bias} bias"

    def embed(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Applies the network to `[n, 299, 299, 3]` images in [-1, 1]; see the base class."""
        features, *logits = self._body(images)
        chosen = logits[0] if self.with_bias else logits[1]
        return tf.reshape(features, [-1, self.num_features]), chosen[:, : self.num_classes]

    def _check_outputs(self) -> None:
        """Runs one grey image, so that a wrong network is found before the training starts."""
        size = self.input_size
        try:
            outputs = self._body(tf.zeros([1, size, size, 3]))
        except (ValueError, tf.errors.OpError) as error:
            raise UserError(f"the network cannot be run: {error}") from error
        self._outputs = len(outputs)
        sizes = [(_FEATURES, self.num_features), (_LOGITS, LOGITS), ("logits without bias", LOGITS)]
        for (name, length), output in zip(sizes, outputs, strict=False):
            shape = tuple(size for size in output.shape if size != 1)
            if shape != (length,) or output.dtype != tf.float32:
                raise UserError(
                    f"{name} of the network: {output.dtype.name} of shape {tuple(output.shape)} "
                    f"instead of float32 [1, {length}]; it is not the expected one"
                )
            if not np.isfinite(output).all():
                raise UserError(f"{name} of the network: NaN or infinity; its weights are damaged")


def open_inception(
    path: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    sha256: str | None = None,
) -> InceptionNetwork:
    """Opens the Inception network, downloading the frozen graph if need be.

    The file's SHA-256 is remembered in the cache; if the file is another one later, it is refused.

    Args:
        path: The published archive, the `.pb` file taken from it, or its weights converted to
            PyTorch (`pt_inception-2015-12-05-6726825d.pth` and its like); None for the cache.
        cache_dir: Root of the cache; None for Keras' own.
        sha256: Expected digest, in hexadecimal, of the file or of the graph in it; also accepts a
            file that has changed.

    Returns:
        The network.

    Raises:
        UserError: The file is missing, cannot be downloaded, or is not what it should be.
    """
    file_memory.check_expected(sha256)
    memory = cache_folder(cache_dir, CACHE_SUBFOLDER)
    source = Path(path).expanduser() if path is not None else _cached_archive(memory)
    try:
        data = _read_bounded(source)
        files = {source.name: file_memory.sha256(data)}
        weights = data
        if data.startswith(_GZIP_MAGIC):
            weights = _graph_from_archive(data)
            files[MEMBER_NAME] = file_memory.sha256(weights)
        file_memory.check_file(source, files, sha256, memory)
        is_torch = torch_weights.is_torch_file(weights)
        build = InceptionNetwork.from_torch if is_torch else InceptionNetwork.from_graph
        network = build(weights, files)
    except UserError as error:
        raise UserError(
            f"cannot use the Inception graph {source}: {error}. Expected is {ARCHIVE_NAME} as "
            f"published at {ARCHIVE_URL}, {MEMBER_NAME} from it, or its weights as .pth."
        ) from error
    file_memory.remember_file(source, files[source.name], memory)
    return network


def open_by_files(files: NetworkFiles) -> InceptionNetwork:
    """`open_inception`, as the network's row asks."""
    return open_inception(files.path, files.cache_dir, files.sha256)


def _cached_archive(folder: Path) -> Path:
    """Path of the archive in the cache's folder, after downloading it if it is not there."""
    archive = folder / ARCHIVE_NAME
    if archive.exists():
        return archive
    logger.info("downloading %s to %s", ARCHIVE_URL, archive)
    try:
        download(ARCHIVE_URL, archive, MAX_GRAPH_BYTES)
    except UserError as error:
        raise UserError(
            f"cannot download {error}. Try again, which goes on where it ended; or put the file at "
            f"{archive}, or name its place by --inception_path, or evaluate with another network "
            "by --feature_network=digits."
        ) from error
    return archive


def _read_bounded(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_GRAPH_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot read it: {error.strerror or error}") from error
    if len(data) > MAX_GRAPH_BYTES:
        raise UserError(f"it is larger than {MAX_GRAPH_BYTES} bytes")
    return data


def _graph_from_archive(data: bytes) -> bytes:
    """Reads the one member wanted, by its exact name, without extracting anything."""
    try:
        with gzip.open(io.BytesIO(data)) as stream:
            unpacked = stream.read(MAX_ARCHIVE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"the archive is damaged or incomplete: {error}") from error
    if len(unpacked) > MAX_ARCHIVE_BYTES:
        raise UserError(f"the archive unpacks to more than {MAX_ARCHIVE_BYTES} bytes")
    try:
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as archive:
            return _member(archive)
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        raise UserError(f"the archive is damaged: {error}") from error


def _member(archive: tarfile.TarFile) -> bytes:
    found = [member for member in archive if member.name == MEMBER_NAME]
    if len(found) != 1:
        raise UserError(f"the archive has {len(found)} members {MEMBER_NAME} instead of one")
    member = found[0]
    # A sparse member counts as a regular file but may claim any size.
    if not member.isreg() or member.issparse() or member.size > MAX_GRAPH_BYTES:
        raise UserError(f"member {MEMBER_NAME} of the archive is not a regular file of sane size")
    file = archive.extractfile(member)
    assert file is not None  # of a regular file it never is
    with file:
        return file.read()

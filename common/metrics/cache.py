"""Arrays that are expensive to compute, kept on disk and verified when read."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import atomic_write
from common.parsers.npz import UNREADABLE

logger = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]

# Entries beside the arrays. A slash keeps them apart from names that callers choose.
_KEY = "cache/key"
_DIGEST = "cache/sha256"


class DamagedCacheError(Exception):
    """A cached file cannot be read or does not hold what was written."""


def cache_folder(cache_dir: str | os.PathLike | None, subfolder: str) -> Path:
    """Returns a writable folder below the cache, made if need be.

    Args:
        cache_dir: Root of the cache; None for Keras' own, `$KERAS_HOME` or `~/.keras`.
        subfolder: Name of the folder below the root.

    Returns:
        The folder's path.

    Raises:
        UserError: The folder cannot be made or written to. Keras would go to `/tmp` instead,
            silently, where the next run might not look.
    """
    root = Path(cache_dir or os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    folder = root / subfolder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the cache folder {folder}: {error}; choose another cache folder"
        ) from error
    if not os.access(root, os.W_OK) or not os.access(folder, os.W_OK):
        raise UserError(f"cannot write to the cache folder {folder}; choose another cache folder")
    return folder


def canonical_json(value: Any) -> str:
    """Returns the one JSON text of a value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def key_digest(key: Mapping[str, Any]) -> str:
    """Returns the SHA-256, in hexadecimal, of a key's canonical JSON."""
    return hashlib.sha256(canonical_json(key).encode()).hexdigest()


def content_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256, in hexadecimal, of arrays with their names, dtypes and shapes.

    It does not depend on how a file format packs them, nor on their order.
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(canonical_json([name, array.dtype.str, list(array.shape)]).encode())
        digest.update(array.data)
    return digest.hexdigest()


def load_or_compute(path: Path, key: Mapping[str, Any], compute: Callable[[], Arrays]) -> Arrays:
    """Reads arrays from the cache, or computes and writes them.

    A damaged file is reported by a warning and replaced.

    Args:
        path: The `.npz` file, in an existing folder.
        key: JSON-able description of what the arrays are, stored and compared when read.
        compute: Called without arguments if there is no usable file.

    Returns:
        The arrays by name.

    Raises:
        UserError: The file cannot be written.
    """
    if path.exists():
        try:
            return read_arrays(path, key)
        except DamagedCacheError as error:
            logger.warning("cached file %s is damaged (%s); computing it again", path, error)
    arrays = compute()
    write_arrays(path, key, arrays)
    return arrays


def write_arrays(path: Path, key: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays to a file beside `path`, then renames it.

    Other processes may write the same file at the same time: each renames a whole one.

    Raises:
        UserError: The file cannot be written.
    """
    facts = {_KEY: np.array(canonical_json(key)), _DIGEST: np.array(content_digest(arrays))}
    entries: dict[str, Any] = {**arrays, **facts}
    try:
        with atomic_write(path, "wb") as file:
            np.savez(file, **entries)
    except OSError as error:
        raise UserError(f"cannot write the cached file {path}: {error}") from error


def read_arrays(path: Path, key: Mapping[str, Any]) -> Arrays:
    """Reads what `write_arrays` wrote, without unpickling.

    Raises:
        DamagedCacheError: The file is unreadable, is about something else, or has changed.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            entries = {name: archive[name] for name in archive.files}
    except UNREADABLE as error:
        raise DamagedCacheError(f"unreadable: {error}") from error
    stored_key, stored_digest = (str(entries.pop(name, "")) for name in (_KEY, _DIGEST))
    if stored_key != canonical_json(key):
        raise DamagedCacheError("it describes something else")
    if stored_digest != content_digest(entries):
        raise DamagedCacheError("its SHA-256 is not the recorded one")
    return entries

"""Checkpoints of a run: TensorFlow's own, under the original's names (specification, section 7)."""

import contextlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from common.errors import UserError
from common.files import atomic_write, sync
from common.parsers.checkpoint_index import check_index

KEPT = 5
_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"model-(\d{1,18})\.index")
# What TensorFlow, and the decoding of a run's progress, raise for a file that is cut short,
# altered, missing, or of another network.
DAMAGES = (
    tf.errors.OpError,
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)


class Checkpoints:
    """Saves and restores everything that training changes.

    `model-<id>` in the run's checkpoint folder, the last five kept, and permanent copies in
    `global_id-<id>/`. Each also holds what the run had written by then, see `restore`. A checkpoint
    is complete or absent: it is written aside, brought to the disk, and renamed. The checksums that
    TensorFlow puts into its files are verified when they are read.

    Args:
        folder: the run's checkpoint folder.
        restore_from: the folder to restore from, by default the same.
        is_due: `f(global_id) -> bool`, whether the schedule asks for a checkpoint. One that it does
            not ask for, made because the run had to stop, goes when the next one is written.
        **trackables: models and optimisers, by name.
    """

    def __init__(
        self,
        folder: str | Path,
        restore_from: str | Path | None = None,
        is_due: Callable[[int], bool] = lambda global_id: True,
        **trackables: Any,
    ) -> None:
        self._folder = Path(folder)
        self._is_due = is_due
        self._restore_from = Path(restore_from or folder)
        self._damaged: list[Path] = []
        self._progress = tf.Variable("", dtype=tf.string, trainable=False, name="progress")
        self._checkpoint = tf.train.Checkpoint(progress=self._progress, **trackables)

    @property
    def latest(self) -> Path | None:
        """Path of the newest checkpoint, without a suffix, or None."""
        return next(iter(_newest_first(self._folder)), None)

    def save(self, global_id: int, written: Mapping[str, Any], *, permanent: bool = False) -> None:
        """Writes a checkpoint after iteration `global_id`.

        Args:
            global_id: the last iteration that was trained.
            written: JSON-able dictionary describing the files written so far.
            permanent: whether it is kept for good, in a folder of its own.

        Raises:
            UserError: it cannot be written; those before it are as they were.
        """
        self._progress.assign(json.dumps({"global_id": global_id, "written": written}))
        folder = self._permanent(global_id) if permanent else self._folder
        with _writing(folder, global_id):
            name = f"model-{global_id}"
            _place(folder, name, lambda aside: self._checkpoint.write(str(aside / name)))
            if not permanent:
                _write_state(folder)
                self._remove_old()
            _write_state(folder)

    def keep(self, global_id: int) -> None:
        """Copies a checkpoint that is there to where it is kept for good, unless it is.

        Raises:
            UserError: it cannot be written; the others are as they were.
        """
        name, folder = f"model-{global_id}", self._permanent(global_id)
        if (folder / f"{name}.index").exists():
            return
        files = list(self._folder.glob(f"{name}.*"))
        with _writing(folder, global_id):
            _place(folder, name, lambda aside: [shutil.copy(path, aside) for path in files])
            _write_state(folder)

    def has(self, global_id: int, *, permanent: bool = False) -> bool:
        """Whether there is such a checkpoint in the folder to restore from."""
        folder = self._restore_from / f"global_id-{global_id}" if permanent else self._restore_from
        return (folder / f"model-{global_id}.index").exists()

    def _remove_old(self) -> None:
        paths = _newest_first(self._folder)
        due = [path for path in paths if self._is_due(iteration_of(path))]
        passing = [path for path in paths[1:] if path not in due]
        for path in [*passing, *due[KEPT:]]:
            _remove(path)

    def _permanent(self, global_id: int) -> Path:
        return self._folder / f"global_id-{global_id}"

    def restore(self) -> tuple[int, dict[str, Any]]:
        """Restores the newest checkpoint that can be read; damaged ones are reported.

        Returns:
            `(global_id, written)` as it was saved, or `(-1, {})` if none was ever written.

        Raises:
            UserError: none of the checkpoints can be restored, or they are gone.
        """
        candidates = self._candidates()
        for path in candidates:
            try:
                check_index(path)
                self._checkpoint.read(str(path)).assert_consumed()
                return _progress(self._progress.numpy())
            except DAMAGES as error:
                self._damaged.append(path)
                _LOG.warning("%s cannot be restored: %s", path, _first_line(error))
        if candidates or (self._restore_from / "checkpoint").exists():
            raise UserError(
                f"{self._restore_from}: no checkpoint can be restored. Put one back, or move the "
                "run's folder away to start anew."
            )
        return -1, {}

    def set_aside_damaged(self) -> None:
        """Renames what `restore` found damaged to `damaged-model-<id>`, which nothing takes for the
        newest checkpoint; deletes nothing.

        Raises:
            OSError: as of renaming.
        """
        for path in self._damaged:
            if self._folder not in path.parents:  # another host's
                continue
            # The index goes first: without it, the rest is no checkpoint.
            parts = sorted(path.parent.glob(f"{path.name}.*"), key=lambda p: p.suffix != ".index")
            for part in parts:
                part.replace(part.with_name(f"damaged-{part.name}"))
            _write_state(path.parent)
        self._damaged = []

    def _candidates(self) -> list[Path]:
        return list_checkpoints(self._restore_from)


@contextlib.contextmanager
def _writing(folder: Path, global_id: int) -> Iterator[None]:
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise UserError(
            f"{folder}: checkpoint {global_id} cannot be written ({_first_line(error)}). Those "
            "before it are intact: mend the cause, and the same command goes on."
        ) from error


def _place(folder: Path, name: str, write: Callable[[Path], Any]) -> None:
    """Brings a checkpoint's files to the disk that `write` makes in the folder it is given."""
    for left in folder.glob(".model-*.partial"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    aside = folder / f".{name}.partial"
    aside.mkdir(parents=True)
    try:
        write(aside)
        # Without its index a checkpoint is not one: the index comes last.
        for path in sorted(aside.iterdir(), key=lambda path: path.suffix == ".index"):
            sync(path)
            path.replace(folder / path.name)
        sync(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def list_checkpoints(folder: str | Path) -> list[Path]:
    """Paths of all checkpoints in a run's folder of such, the newest first, the permanent too."""
    folders = [Path(folder), *Path(folder).glob("global_id-*")]
    paths = [path for each in folders for path in _newest_first(each)]
    return sorted(paths, key=iteration_of, reverse=True)


def iteration_of(checkpoint: Path) -> int:
    """The last iteration that a checkpoint's path says it holds."""
    return int(checkpoint.name.removeprefix("model-"))


def _newest_first(folder: Path) -> list[Path]:
    """Paths of a folder's checkpoints, without suffix."""
    paths = [path.with_suffix("") for path in folder.glob("model-*") if _NAME.fullmatch(path.name)]
    return sorted(paths, key=iteration_of, reverse=True)


def _remove(path: Path) -> None:
    path.with_name(f"{path.name}.index").unlink()  # first: without it, the rest is no checkpoint
    for part in path.parent.glob(f"{path.name}.data-*"):
        part.unlink()


def _write_state(folder: Path) -> None:
    """Writes the file that `tf.train.latest_checkpoint` reads, with relative names."""
    names = [path.name for path in reversed(_newest_first(folder))]
    if not names:
        (folder / "checkpoint").unlink(missing_ok=True)
        return
    lines = [f'model_checkpoint_path: "{names[-1]}"']
    lines += [f'all_model_checkpoint_paths: "{name}"' for name in names]
    with atomic_write(folder / "checkpoint") as file:
        file.write("\n".join(lines) + "\n")


def _progress(text: str | bytes) -> tuple[int, dict[str, Any]]:
    """`(global_id, written)` of the JSON text that a checkpoint carries."""
    progress = json.loads(text)
    global_id, written = progress["global_id"], progress["written"]
    sizes = written.get("events", {}).values()
    if type(global_id) is not int or not all(type(s) is int and s >= 0 for s in sizes):
        raise TypeError("the record of its progress is damaged")
    return global_id, written


def _first_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return os.strerror(error.errno) if error.errno else error.strerror
    return (str(error).strip() or repr(error)).splitlines()[0]

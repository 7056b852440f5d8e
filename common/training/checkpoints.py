"""Checkpoints of a run: TensorFlow's own, under the original's names (specification, section 7)."""

import json
import logging
from pathlib import Path

import tensorflow as tf

from common.errors import UserError

KEPT = 5
_LOG = logging.getLogger(__name__)
# What TensorFlow raises for a file that is cut short, altered, missing, or of another network.
DAMAGES = (
    tf.errors.OpError,
    AssertionError,
    IndexError,
    KeyError,
    OSError,
    TypeError,
    ValueError,
)


class Checkpoints:
    """Saves and restores everything that training changes.

    `model-<id>` in the run's checkpoint folder, the last five kept, and permanent copies in
    `global_id-<id>/`. Each also holds what the run had written by then, see `restore`.

    Args:
        folder: the run's checkpoint folder.
        restore_from: the folder to restore from, by default the same.
        **trackables: models and optimisers, by name.
    """

    def __init__(self, folder, restore_from=None, **trackables):
        self._folder = Path(folder)
        self._restore_from = Path(restore_from or folder)
        self._progress = tf.Variable("", dtype=tf.string, trainable=False, name="progress")
        self._checkpoint = tf.train.Checkpoint(progress=self._progress, **trackables)
        self._recent = self._manager(self._folder, KEPT)

    def _manager(self, folder, keep):
        return tf.train.CheckpointManager(
            self._checkpoint, str(folder), max_to_keep=keep, checkpoint_name="model"
        )

    @property
    def latest(self):
        """Path of the newest checkpoint, or None."""
        return self._recent.latest_checkpoint

    def save(self, global_id, written, *, permanent=False):
        """Writes a checkpoint after iteration `global_id`.

        Args:
            global_id: the last iteration that was trained.
            written: JSON-able dictionary describing the files written so far.
            permanent: whether it is kept for good, in a folder of its own.
        """
        self._progress.assign(json.dumps({"global_id": global_id, "written": written}))
        manager = self._recent
        if permanent:
            manager = self._manager(self._folder / f"global_id-{global_id}", 1)
        manager.save(checkpoint_number=global_id)

    def restore(self):
        """Restores the newest checkpoint that can be read; damaged ones are reported.

        Returns:
            `(global_id, written)` as it was saved, or `(-1, {})` if none was ever written.

        Raises:
            UserError: none of the checkpoints can be restored, or they are gone.
        """
        candidates = self._candidates()
        for path in candidates:
            try:
                self._checkpoint.restore(str(path)).assert_consumed()
                progress = json.loads(self._progress.numpy())
                return progress["global_id"], progress["written"]
            except DAMAGES as error:
                reason = (str(error).strip() or repr(error)).splitlines()[0]
                _LOG.warning("%s cannot be restored: %s", path, reason)
        if candidates or (self._restore_from / "checkpoint").exists():
            raise UserError(
                f"{self._restore_from}: no checkpoint can be restored. Put one back, or move the "
                "run's folder away to start anew."
            )
        return -1, {}

    def _candidates(self):
        return list_checkpoints(self._restore_from)


def list_checkpoints(folder):
    """Paths of all checkpoints in a run's folder of such, the newest first, the permanent too."""
    paths = [path.with_suffix("") for path in folder.glob("model-*.index")]
    paths += [path.with_suffix("") for path in folder.glob("global_id-*/model-*.index")]
    return sorted(paths, key=iteration_of, reverse=True)


def iteration_of(checkpoint):
    """The last iteration that a checkpoint's path says it holds."""
    return int(checkpoint.name.removeprefix("model-"))

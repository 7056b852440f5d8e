"""Checkpoints of a run: TensorFlow's own, under the original's names (specification, section 7)."""

import json
from pathlib import Path

import tensorflow as tf

from common.errors import UserError

KEPT = 5


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
        """Restores the newest checkpoint.

        Returns:
            `(global_id, written)` as it was saved, or `(-1, {})` if there is none.

        Raises:
            UserError: the checkpoint is damaged or of another network.
        """
        newest = tf.train.latest_checkpoint(self._restore_from)
        if newest is None:
            return -1, {}
        try:
            self._checkpoint.restore(newest).assert_consumed()
            progress = json.loads(self._progress.numpy())
            return progress["global_id"], progress["written"]
        except (tf.errors.OpError, AssertionError, ValueError, KeyError) as error:
            first_line = str(error).strip().splitlines()[0]
            raise UserError(
                f"{newest}: the checkpoint cannot be restored ({first_line}). Remove it to go on "
                "from the one before it."
            ) from None

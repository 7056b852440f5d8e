"""Writing a file so that it is either complete under its name or absent."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

_UMASK = os.umask(0)  # read once: there is no way but to set it
os.umask(_UMASK)


@contextmanager
def atomic_write(path, mode="w", *, durable=True):
    """Opens a temporary file beside `path` that takes its place when the block ends well.

    Args:
        path: the final name.
        mode: "w" (UTF-8 text) or "wb".
        durable: whether to wait until the disk has it, lest a loss of power leave it empty.

    Raises:
        OSError: as of writing; the file under the final name is then as it was.
    """
    path = Path(path)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)
        os.replace(temporary, path)
        if durable:
            sync(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sync(path):
    """Brings a file's contents, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

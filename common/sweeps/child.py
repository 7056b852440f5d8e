"""What ties a job's process to the one that started it."""

import ctypes
import os
import signal
import sys

from common.exit_status import EXIT_INTERRUPTED

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Has the kernel send SIGTERM to this process as soon as its parent is gone (Linux).

    A scheduler that is killed so leaves no orphans: they write a checkpoint and end.

    Args:
        parent: the parent's process id; if it is gone already, this process ends.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        sys.exit(EXIT_INTERRUPTED)

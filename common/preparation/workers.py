"""All cores at work, results in order, and nothing left running."""

import ctypes
import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from common.errors import UserError

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")

_huge_lock = threading.Lock()  # in a worker process: the one lock that all of them share


@contextmanager
def worker_processes(count: int) -> Iterator[Executor]:
    """Starts processes that end with the block, and with this process however it ends.

    Processes rather than threads: Pillow's decoders release Python's lock, but the many short calls
    around them do not, so that two threads decode small images hardly faster than one.

    Raises:
        UserError: a process was killed from outside.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        count, mp_context=context, initializer=_start, initargs=(context.Lock(),)
    )
    try:
        # Which the processes inherit: the parent alone answers Ctrl-C.
        with _interrupts_blocked(), _one_blas_thread():
            for _ in range(count):
                pool.submit(os.getpid)
        yield pool
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, perhaps for want of memory; try fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def in_order(
    pool: Executor, work: Callable[[_Task], _Result], tasks: Iterable[_Task], ahead: int
) -> Iterator[_Result]:
    """Like `map`, by the pool, drawing at most `ahead` tasks more than there are results."""
    pending: deque[Future[_Result]] = deque()
    try:
        for task in tasks:
            pending.append(pool.submit(work, task))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def alone() -> threading.Lock:
    """Returns the lock for what only one worker at a time has the memory for."""
    return _huge_lock


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Keeps NumPy, in processes started meanwhile, from starting a thread for each core.

    Nothing here needs them, and on many cores each process would have as many.
    """
    name = "OPENBLAS_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _start(lock: Any) -> None:
    """Prepares a worker process."""
    global _huge_lock  # noqa: PLW0603 (locks reach a process only through its initializer)
    _huge_lock = lock
    warnings.filterwarnings("ignore", module="PIL")  # of damaged EXIF blocks: ImageNet has some
    _keep_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _keep_freed_memory() -> None:
    """Lets glibc keep up to 32 MB for the next image.

    By default it hands most of an image's memory back to the system, to ask for it again at the
    next one, which can take longer than the decoding.
    """
    trim_threshold, mmap_threshold = -1, -3  # the numbers in malloc.h
    with suppress(OSError, AttributeError):  # another C library than glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 2**22)
        mallopt(trim_threshold, 2**25)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)

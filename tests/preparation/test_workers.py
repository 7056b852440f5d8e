"""What the worker processes are like."""

import os
from collections.abc import Iterator
from concurrent.futures import Executor

import numpy as np
import pytest

from common.preparation.workers import worker_processes


@pytest.fixture(params=["", "4"])
def pool(request, monkeypatch) -> Iterator[Executor]:
    if request.param:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", request.param)
    else:
        monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with worker_processes(1) as found:
        assert dict(os.environ) == before
        yield found


def threads() -> int:
    np.ones((500, 500)) @ np.ones((500, 500))  # NumPy's BLAS would divide this among its threads
    return len(os.listdir("/proc/self/task"))


def test_a_worker_has_one_thread_and_that_which_watches_its_parent(pool):
    assert pool.submit(threads).result() == 2

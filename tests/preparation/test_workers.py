"""What the worker processes are like."""

import io
import os
from concurrent.futures import Executor

import numpy as np
import pytest
from PIL import Image

from common.preparation.workers import worker_processes
from tests.preparation.archives import encode, photograph

LARGE = encode(photograph(0, 375, 500, 12), quality=95)


@pytest.fixture(scope="module")
def pool() -> Executor:
    before = dict(os.environ)
    with worker_processes(1) as found:
        assert dict(os.environ) == before
        yield found


def threads() -> int:
    np.ones((500, 500)) @ np.ones((500, 500))  # NumPy's BLAS would divide this among its threads
    return len(os.listdir("/proc/self/task"))


def test_a_worker_has_one_thread_and_that_which_watches_its_parent(pool):
    assert pool.submit(threads).result() == 2


class Counted(io.BytesIO):
    """Counts the pieces that are read of the picture itself."""

    pieces = 0

    def read(self, size=-1):
        data = super().read(size)
        self.pieces += len(data) > 10_000  # the headers are shorter
        return data


def pieces() -> int:
    file = Counted(LARGE)
    Image.open(file).load()
    return file.pieces


def test_files_are_decoded_as_a_whole(pool):
    assert pieces() == 2
    assert pool.submit(pieces).result() == 1

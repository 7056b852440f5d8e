"""Spoilt input ends in success or in a clear error; and what would be a failure is seen."""

import pickle
import subprocess
import time

import numpy as np
import pytest

from common.errors import UserError
from tests.faults import fuzz
from tests.faults.mutations import Spoiler
from tests.faults.parsers import PARSERS
from tests.faults.table_files import crc32c


@pytest.mark.parametrize("name", PARSERS)
def test_spoilt_input_is_read_or_refused(name):
    result = fuzz.fuzz(name, 60)
    assert result["first_failures"] == []
    assert result["successes"] + result["clear_errors"] == result["inputs"] == 60


def _writes_elsewhere(box, spoiler):
    (box.parent / "elsewhere").write_text("")
    (box.parent / "elsewhere").unlink()


def _runs_a_program(box, spoiler):
    subprocess.run(["true"], check=True)


def _unpickles_a_class(box, spoiler):
    pickle.loads(pickle.dumps(UserError))


def _hangs(box, spoiler):
    time.sleep(60)


def _takes_memory(box, spoiler):
    np.ones(fuzz.MEMORY + 2**20, np.uint8)


def _fails(box, spoiler):
    raise KeyError("depths")


def _says_nothing(box, spoiler):
    raise UserError("")


def _is_refused(box, spoiler):
    raise UserError("no such thing")


def _is_read(box, spoiler):
    (box / "file").write_text("")


_ENDS = {
    _writes_elsewhere: "elsewhere",
    _runs_a_program: "subprocess.Popen",
    _unpickles_a_class: "pickle.find_class",
    _hangs: "_Hang",
    _takes_memory: "MiB of memory",
    _fails: "KeyError: 'depths'",
    _says_nothing: "an empty message",
    _is_refused: "clear_errors",
    _is_read: "successes",
}


def _watched(pipe, root):
    fuzz.SECONDS, fuzz.MEMORY = 1, 2**26
    watch = fuzz._Watch(root)
    pipe.send([watch.outcome(feed, Spoiler()) for feed in _ENDS])


def test_whatever_an_input_should_not_do_is_a_failure(tmp_path):
    ours, theirs = fuzz._PROCESSES.Pipe()
    process = fuzz._PROCESSES.Process(target=_watched, args=(theirs, tmp_path))
    process.start()
    assert ours.poll(60)
    outcomes = ours.recv()
    process.join()
    for expected, outcome in zip(_ENDS.values(), outcomes, strict=True):
        if expected in ("successes", "clear_errors"):
            assert (outcome["kind"], outcome["reason"]) == (expected, "")
        else:
            assert outcome["kind"] == "failures"
            assert expected in outcome["reason"]


def _spoilt(number):
    spoiler = Spoiler(3, number, stages=3)
    pieces = spoiler.data(bytes(range(100))), spoiler.text("a=1, b=2"), spoiler.document("[1, 2]")
    assert spoiler.count == 3
    return pieces


def test_the_same_number_spoils_the_same_pieces_in_the_same_way():
    results = [_spoilt(number) for number in range(50)]
    assert results == [_spoilt(number) for number in range(50)]
    assert len(set(results)) > 40
    whole = (bytes(range(100)), "a=1, b=2", b"[1, 2]")
    same = [sum(a == b for a, b in zip(r, whole, strict=True)) for r in results]
    assert set(same) <= {1, 2, 3}  # one piece is spoilt, or two
    assert same.count(2) > same.count(1) > 0


def test_the_checksum_is_castagnolis():
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720's polynomial, its usual check value
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, appendix B.4

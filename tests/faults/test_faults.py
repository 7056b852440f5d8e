"""A few of the faults of `python -m tests.faults`, on the smallest CNN."""

import json
import os
import sys

import pytest

from tests.faults import __main__ as faults


@pytest.mark.parametrize(
    ("fault", "count"),
    [
        ("SIGKILL", 1),
        pytest.param("SIGKILL", 3, marks=pytest.mark.slow),
        pytest.param("SIGTERM", 1, marks=pytest.mark.slow),
        pytest.param("damaged checkpoint", 1, marks=pytest.mark.slow),
        pytest.param(
            "full disk",
            2,
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root"),
            ],
        ),
    ],
)
def test_nothing_is_lost(fault, count, monkeypatch, capfd):
    arguments = ["--faults", fault, "--kills", str(count), "--variants", "no_gamma_cnn"]
    monkeypatch.setattr(sys, "argv", ["faults", *arguments])
    with pytest.raises(SystemExit) as end:
        faults.main()
    result = json.loads(capfd.readouterr().out.splitlines()[-1])
    if "not_tried" in result:
        pytest.skip(result["not_tried"])
    assert (result["faults"], result["differences"], result["unclear_ends"]) == (count, [], [])
    assert end.value.code == 0

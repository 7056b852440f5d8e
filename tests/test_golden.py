"""The golden runs of the original, replayed (specification, section 9)."""

from pathlib import Path

import pytest

from tests.replay_golden import LIMIT, main, replay

GOLDEN = Path(__file__).parent / "golden"
QUICK = ("no_gamma_cnn-cifar10-bssn", "diff_gamma_cnn-cifar10-sn")  # one for each loss
CNN_RUNS = [
    pytest.param(path, marks=() if path.stem in QUICK else pytest.mark.slow, id=path.stem)
    for path in sorted(GOLDEN.glob("*_cnn-*.json"))
]


@pytest.mark.parametrize("path", CNN_RUNS)
def test_the_cnns_replay(path):
    deviations = replay(path)
    assert len(deviations) > 1000
    assert max(deviations.values()) <= LIMIT


@pytest.mark.slow
def test_the_resnet_replays():
    """One of its two iterations, which take a minute each in float64."""
    deviations = replay(GOLDEN / "no_gamma_resnet-imagenet-bssn.json", iterations=1)
    assert len(deviations) > 900
    assert max(deviations.values()) <= LIMIT


def test_a_wrong_number_is_found(tmp_path, capsys):
    """One last digit of one recorded number, among the hardest to reach."""
    text = (GOLDEN / "no_gamma_cnn-cifar10-sn.json").read_text()
    start = text.index('"samples"')
    number = text.index("0.", start) + 8
    changed = text[:number] + str((int(text[number]) + 5) % 10) + text[number + 1 :]
    (tmp_path / "changed.json").write_text(changed)
    assert main([str(tmp_path / "changed.json")]) == 1
    assert "samples/" in capsys.readouterr().out

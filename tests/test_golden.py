"""The golden files, replayed by their systems."""

import json
from pathlib import Path

import pytest

from tests.golden_systems import bsn, gan_comparison
from tests.replay_golden import main

GOLDEN = Path(__file__).parent / "golden"
CNN_RUNS = sorted(GOLDEN.glob("*_cnn-*.json"))
# One of each loss is quick to try; the others differ in normalisation and gammas.
QUICK = ("no_gamma_cnn-cifar10-bssn", "diff_gamma_cnn-cifar10-sn")
MARKED = [
    pytest.param(path, id=path.stem, marks=() if path.stem in QUICK else pytest.mark.slow)
    for path in CNN_RUNS
]
RESNET_RUN = GOLDEN / "no_gamma_resnet-imagenet-bssn.json"
COMPARISON = GOLDEN / "gan_comparison-losses.json"


def contents(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize("path", MARKED)
def test_the_cnns_replay(path):
    deviations = bsn.replay(contents(path))
    assert len(deviations) > 1000
    assert max(deviations.values()) <= bsn.LIMIT


@pytest.mark.parametrize("path", MARKED)
def test_the_cnns_replay_by_the_plain_step(path):
    """Two iterations: the reference is held against the original, too."""
    deviations = bsn.replay(contents(path), iterations=2, step="plain")
    assert len(deviations) > 400
    assert max(deviations.values()) <= bsn.LIMIT


@pytest.mark.slow
def test_the_resnet_replays():
    """One of its two iterations, which take a minute each in float64."""
    deviations = bsn.replay(contents(RESNET_RUN), iterations=1)
    assert len(deviations) > 900
    assert max(deviations.values()) <= bsn.LIMIT


CASES = [
    "spectral_norm",
    "softplus",
    "adam_A",
    "adam_B",
    "layer_norm_features",
    "layer_norm_images",
    "inception_score",
    "fid",
]


@pytest.mark.parametrize("name", CASES)
def test_the_comparisons_functions_give_the_recorded_values(name):
    deviations = gan_comparison.replay(contents(COMPARISON), [name])
    assert deviations
    assert max(deviations.values()) <= gan_comparison.LIMIT


def test_a_wrong_number_is_found(tmp_path, capsys):
    """One last digit of one recorded number, among the hardest to reach."""
    text = (GOLDEN / "no_gamma_cnn-cifar10-sn.json").read_text()
    start = text.index('"samples"')
    number = text.index("0.", start) + 8
    changed = text[:number] + str((int(text[number]) + 5) % 10) + text[number + 1 :]
    (tmp_path / "changed.json").write_text(changed)
    assert main([str(tmp_path / "changed.json")]) == 1
    assert "samples/" in capsys.readouterr().out


def test_what_is_of_no_system_is_told_and_fails(tmp_path, capsys):
    (tmp_path / "other.json").write_text('{"case": {"name": "x", "variant": "unheard_of"}}')
    (tmp_path / "damaged.json").write_text("{")
    paths = [tmp_path / name for name in ("other.json", "damaged.json", "missing.json")]
    assert main([str(path) for path in paths]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "unheard_of" in lines[0]
    assert len(lines) == 3

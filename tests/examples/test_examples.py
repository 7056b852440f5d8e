"""One of each kind of choice, added in one new file beside a configuration, and trained.

Nothing in the project knows of these files: `python main.py` finds them by their import paths.
"""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Lines that are neither empty nor a docstring's, of each example.
MOST_LINES = 25

CONFIG = """
config = {
    "scheduler_config": {"gpu": ["0"]},
    "global_config": {
        "batch_size": 8, "latent_dim": 4, "vis_freq": 2, "vis_num_h": 2, "vis_num_w": 3,
        "summary_freq": 1, "metric_freq": 3, "save_checkpoint_freq": 3,
        "extra_checkpoint_freq": 100, "is_samples": 20, "fid_samples": 10, "fid_real": 10,
        "iteration": 3, "n_dis": 2, "g_lr": 0.001, "d_lr": 0.001, "g_beta1": 0.5,
        "d_beta1": 0.5, "g_beta2": 0.9, "d_beta2": 0.9, "scale": 1.0, %s
    },
    "test_config": [{"run": [0], "sn_mode": [%r]}],
}
"""
CNN = '"dataset": "digits", "mg": 4, "width": 2'
EXAMPLES = {
    "own_loss": (f'{CNN}, "loss": "own_loss:margin"', "SN", "none"),
    "own_penalty": (f'{CNN}, "penalty": "own_penalty:sigmas", "d_gp_coe": 0.1', "none", "none"),
    "own_normalization": (CNN, "own_normalization:WN", "none"),
    "own_network": ('"dataset": "digits", "network": "own_network:mlp"', "none", "none"),
    "own_images": ('"dataset": "own_images:squares", "mg": 1, "width": 2', "BSN", "none"),
    "own_metric": (CNN, "SN", "is,own_metric:diversity"),
}
ALL = (
    '"dataset": "own_images:squares", "network": "own_network:mlp", "loss": "own_loss:margin", '
    '"penalty": "own_penalty:sigmas", "d_gp_coe": 0.1'
)


def run_main(tmp_path, examples, keys, sn_mode, metrics):
    """Trains the configuration in a copy of the variant's folder; returns the run's folder."""
    variant = tmp_path / "no_gamma_cnn"
    variant.mkdir()
    for name in ("main.py", "config.py", "gan_task.py"):
        shutil.copy(ROOT / "no_gamma_cnn" / name, variant)
    for name in examples:
        shutil.copy(HERE / f"{name}.py", variant)
    (variant / "config_own.py").write_text(CONFIG % (keys, sn_mode))
    options = [f"--metrics={metrics}", f"--cache_dir={tmp_path / 'cache'}"]
    command = [sys.executable, "main.py", "--config=own", *options]
    result = subprocess.run(
        command, cwd=variant, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    (folder,) = (variant / "results").iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert record["state"] == "done"
    assert (folder / "checkpoint" / "model-2.index").exists()
    return folder, record


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short(name):
    text = (HERE / f"{name}.py").read_text().split('"""', 2)[2]
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) <= MOST_LINES


def test_all_but_the_normalisation_train_together(tmp_path):
    names = [name for name in EXAMPLES if name != "own_normalization"]
    folder, record = run_main(tmp_path, names, ALL, "none", "is,own_metric:diversity")
    assert record["settings"]["network"] == "own_network:mlp"
    assert record["conditions"]["labels"]["classes"] == 2
    assert set(record["conditions"]["own"]) == {
        "own_images:squares",
        "own_network:mlp",
        "own_loss:margin",
        "own_penalty:sigmas",
        "own_metric:diversity",
    }
    assert record["step"]["name"] == "plain"
    events = EventAccumulator(str(folder / "checkpoint"))
    events.Reload()
    real, fake, penalty, total = (
        events.Scalars(f"loss/d{name}")[0].value for name in ("/real", "/fake", "/gp", "")
    )
    assert penalty > 1  # the sum of three squared norms of random kernels
    assert total == pytest.approx(real + fake + 0.1 * penalty, rel=1e-5)
    means = [events.Scalars(f"d/{name}")[0].value for name in ("real", "fake")]
    # No score of a generated image is below the margin of 2; the real ones may be beyond it.
    assert fake == pytest.approx(2 + means[1], rel=1e-4)
    assert real >= max(0, 2 - means[0]) - 1e-6
    with open(folder / "metrics.csv", newline="") as table:
        (row,) = csv.DictReader(table)
    assert float(row["digits_diversity"]) > 0
    assert Image.open(folder / "sample" / "global_id-1.png").size == (24, 16)


def test_the_normalisation_trains(tmp_path):
    keys, sn_mode, metrics = EXAMPLES["own_normalization"]
    folder, record = run_main(tmp_path, ["own_normalization"], keys, sn_mode, metrics)
    assert "sn_mode-own_normalization:WN," in folder.name
    assert record["step"]["name"] == "plain"
    assert "layer0.conv2d" in record["step"]["why"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "own_normalization"])
def test_each_trains_alone(tmp_path, name):
    run_main(tmp_path, [name], *EXAMPLES[name])


def test_what_is_wrong_with_ones_own_is_said_before_anything_starts(tmp_path):
    variant = tmp_path / "no_gamma_cnn"
    variant.mkdir()
    for name in ("main.py", "config.py", "gan_task.py"):
        shutil.copy(ROOT / "no_gamma_cnn" / name, variant)
    (variant / "broken.py").write_text(
        "from common.networks import Network\n"
        "def build(spec):\n    raise RuntimeError('no such layer')\n"
        "network = Network(build, build)\n"
    )
    keys = '"dataset": "digits", "network": "broken:network"'
    (variant / "config_own.py").write_text(CONFIG % (keys, "SN"))
    command = [sys.executable, "main.py", "--config=own", "--metrics=none"]
    result = subprocess.run(
        command, cwd=variant, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 2
    (line,) = [text for text in result.stderr.splitlines() if text.startswith("error:")]
    assert "network=broken:network" in line
    assert "RuntimeError: no such layer" in line
    assert not (variant / "results").exists()

"""Whole runs: what they leave behind, and that interrupting one changes nothing."""

import csv
import errno
import json
import os
import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.errors import UserError
from common.metrics import InvalidSamplesError
from common.results.run_folder import RunFolder
from common.training.batches import BatchPipeline
from common.training.checkpoints import Checkpoints
from common.training.errors import DivergedError, InterruptedRunError
from common.training.iterations import CompiledIterations
from tests.training.runs import SEED, MeanColours, scalars_of, train
from tests.training.small import VARIANTS, noise_source, small_settings, small_step


def records_of(folder):
    """The contents of metrics.json, without what differs from one time to the next."""
    records = json.loads((folder / "metrics.json").read_text())
    return {i: {k: v for k, v in r.items() if k != "seconds"} for i, r in records.items()}


def test_a_run_leaves_every_file_of_the_specification(tmp_path):
    train(tmp_path / "run", iteration=8)
    run = tmp_path / "run"
    assert RunFolder(run).state == "done"
    names = {path.name for path in (run / "sample").iterdir()}
    assert names == {f"global_id-{i}.png" for i in (1, 3, 5, 7)}
    assert Image.open(run / "sample" / "global_id-7.png").size == (3 * 8, 2 * 8)
    with open(run / "metrics.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["global_id"] for row in rows] == ["1", "3", "5", "7"]
    columns = ["inception_score_mean", "inception_score_std", "fid"]
    assert list(rows[0]) == ["global_id", *(f"colours_{name}" for name in columns)]
    assert all(re.fullmatch(r"\d+\.\d{12}", rows[0][name]) for name in list(rows[0])[1:])
    records = json.loads((run / "metrics.json").read_text())
    assert list(records) == ["1", "3", "5", "7"]
    assert records["7"]["network"]["name"] == "colours"
    assert records["7"]["details"]["fid_standard_error"] > 0
    newest = tf.train.latest_checkpoint(run / "checkpoint")
    assert newest.endswith("model-7")
    for i in (3, 7):
        assert (run / "checkpoint" / f"global_id-{i}" / f"model-{i}.index").exists()
    times = (run / "time.txt").read_text().splitlines()
    pattern = r"iter (\d+) (starts|ends): \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}"
    matches = [re.fullmatch(pattern, line).groups() for line in times]
    assert matches == [("0", "starts"), ("0", "ends"), ("7", "starts"), ("7", "ends")]
    scalars = scalars_of(run)
    assert [step for step, _ in scalars["loss/d"]] == list(range(8))
    assert all(value > 0 for _, value in scalars["gradient_norm/d"] + scalars["gradient_norm/g"])
    assert [step for step, _ in scalars["metric/colours_fid"]] == [1, 3, 5, 7]


def test_only_the_last_five_checkpoints_stay_besides_the_permanent_ones(tmp_path):
    train(tmp_path / "run", iteration=16, evaluate=False)
    saved = {path.stem for path in (tmp_path / "run" / "checkpoint").glob("model-*.index")}
    assert saved == {f"model-{i}" for i in (7, 9, 11, 13, 15)}


def state_of(step):
    """All variables that training changes."""
    optimizers = [step.optimizers.generator, step.optimizers.discriminator]
    models = [model for model in step.networks if model is not None]
    return [variable for part in (*models, *optimizers) for variable in part.variables]


@pytest.mark.parametrize(
    ("name", "stops"),
    [
        ("no_gamma_cnn", (1, 2)),
        pytest.param("diff_gamma_cnn", (2,), marks=pytest.mark.slow),
        ("labels", (1, 2)),
        ("dropout", (1,)),
    ],
)
def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path, name, stops):
    """Same weights, optimisers, u and moving averages, samples, metrics and summaries."""
    whole = train(tmp_path / "whole", name, iteration=7)
    for stop_after in stops:
        with pytest.raises(InterruptedRunError):
            train(tmp_path / "parts", name, stop_after, iteration=7)
    parts = train(tmp_path / "parts", name, iteration=7)
    for a, b in zip(state_of(whole), state_of(parts), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)
    for path in ("metrics.csv", "sample/global_id-5.png"):
        assert (tmp_path / "whole" / path).read_bytes() == (tmp_path / "parts" / path).read_bytes()
    assert scalars_of(tmp_path / "whole") == scalars_of(tmp_path / "parts")
    assert records_of(tmp_path / "whole") == records_of(tmp_path / "parts")


def test_what_was_written_after_the_last_checkpoint_is_not_repeated(tmp_path):
    train(tmp_path / "whole", iteration=6)
    train(tmp_path / "parts", iteration=6)
    # The newest is lost, as the state file that names it does not know.
    for path in (tmp_path / "parts" / "checkpoint").glob("model-5.*"):
        path.unlink()
    train(tmp_path / "parts", iteration=6)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert scalars_of(whole) == scalars_of(parts)
    assert (whole / "metrics.csv").read_bytes() == (parts / "metrics.csv").read_bytes()
    lines = (parts / "time.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "iter 0 starts",
        "iter 0 ends",
        "iter 5 starts",
        "iter 5 ends",
    ]
    assert records_of(whole) == records_of(parts)


def test_chunks_change_nothing_and_nothing_is_traced_again():
    variant = VARIANTS["no_gamma_cnn"]
    settings = small_settings(variant)

    def run(counts):
        step = small_step(settings, SEED)
        pipeline = BatchPipeline(noise_source(8), settings, SEED)
        iterations = CompiledIterations(
            tf.distribute.get_strategy(), step, pipeline, settings.n_dis, 0
        )
        rows = [row for count in counts for row in iterations.run(count)]
        for function in (iterations._compiled, iterations._last_steps, iterations._earlier_step):
            assert function.experimental_get_tracing_count() == 1
        return rows

    assert run([6]) == run([1, 2, 3]) == run([1] * 6)


def test_divergence_stops_the_run_and_keeps_what_was_measured(tmp_path):
    layers = r"layer0\.linear, layer0\.batch_norm, .* and \d more"
    message = (
        r"iteration 1: not finite: .*; training has diverged\. "
        rf"It began in the weights of generator {layers}\. .*good.*model-0"
    )
    with pytest.raises(DivergedError, match=message):
        train(tmp_path / "run", g_lr=1e38, save_checkpoint_freq=1, evaluate=False)
    assert RunFolder(tmp_path / "run").state != "done"
    assert [step for step, _ in scalars_of(tmp_path / "run")["loss/d"]] == [0, 1]


def test_an_update_that_spoils_the_discriminator_is_named(tmp_path):
    message = r"iteration 0: .*It began in the updated weights of discriminator layer0\.conv2d, "
    with pytest.raises(DivergedError, match=message) as caught:
        train(tmp_path / "run", d_lr=1e38, n_dis=1, evaluate=False)
    assert "diagnosis/" not in str(caught.value)


def _spoil_weights(layer):
    layer.trainable_variables[0].assign(np.nan * layer.trainable_variables[0])
    return "weights"


def _spoil_u(layer):
    layer.u[0].assign(np.nan * layer.u[0])
    return "spectral norm"


def _zero_kernel(layer):
    layer.layer.kernel.assign(tf.zeros_like(layer.layer.kernel))
    return "spectral norm"


@pytest.mark.parametrize(
    ("place", "harm"),
    [
        (("diff_gamma_cnn", "generator", "layer2.deconv2d"), _spoil_weights),
        (("no_gamma_cnn", "discriminator", "layer2.conv2d"), _spoil_u),
        pytest.param(
            ("no_gamma_resnet", "discriminator", "layer3.down_resnet.block1.conv2d"),
            _zero_kernel,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_spoilt_layer_is_named(tmp_path, monkeypatch, place, harm):
    """Though everything is NaN by the time that anybody looks."""
    name, network, layer = place
    spoilt = []

    def spoil(self, count, run=CompiledIterations.run):
        spoilt.append(harm(getattr(self._step, network).get_layer(layer)))
        return run(self, count)

    monkeypatch.setattr(CompiledIterations, "run", spoil)
    with pytest.raises(DivergedError) as caught:
        train(tmp_path / "run", name, evaluate=False)
    assert "iteration 0: not finite: " in str(caught.value)
    assert f"It began in the {spoilt[0]} of {network} {layer}." in str(caught.value)


def test_gradients_that_overflow_are_divergence(tmp_path):
    """The losses are finite, and the update would hide in Adam's moments."""
    with pytest.raises(DivergedError, match="iteration 0: not finite: gradient_norm/d"):
        train(tmp_path / "run", "diff_gamma_cnn", d_gp_coe=1e25, evaluate=False)


def test_samples_that_are_not_images_are_divergence(tmp_path):
    with pytest.raises(DivergedError, match="iteration 1: samples 0 to 1 hold NaN"):
        train(tmp_path / "run", network=FailsAt(1, InvalidSamplesError("samples 0 to 1 hold NaN")))


class FailsAt(MeanColours):
    """Its n-th evaluation fails, counting the one of the real images."""

    def __init__(self, number, error):
        super().__init__()
        self._number, self._error, self._starts = number, error, 0

    def __call__(self, images):
        self._starts += len(images) in (20, 32)  # all real images, the first samples
        if self._starts == self._number + 1:
            raise self._error
        return super().__call__(images)


def test_metrics_that_fail_do_not_cost_the_training(tmp_path, caplog):
    train(tmp_path / "run", iteration=6, network=FailsAt(2, RuntimeError("out of luck")))
    with open(tmp_path / "run" / "metrics.csv", newline="") as table:
        assert [row["global_id"] for row in csv.DictReader(table)] == ["1", "5"]
    assert "global_id 3: the metrics failed" in caplog.text
    assert "out of luck" in caplog.text
    folder = RunFolder(tmp_path / "run")
    assert (folder.state, folder.record["missing_metrics"]) == ("done", [3])


def test_where_the_metrics_failed_the_checkpoint_is_kept(tmp_path):
    train(tmp_path / "run", iteration=14, network=FailsAt(1, RuntimeError("out of luck")))
    checkpoints = tmp_path / "run" / "checkpoint"
    assert not (checkpoints / "model-1.index").exists()  # the last five are 5 to 13
    kept = tf.train.load_checkpoint(checkpoints / "global_id-1" / "model-1")
    assert kept.get_variable_to_shape_map()
    assert tf.train.latest_checkpoint(checkpoints / "global_id-1").endswith("model-1")


def test_metrics_that_are_made_when_the_run_goes_on_are_no_longer_missing(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(InterruptedRunError):
        train(
            tmp_path / "run",
            iteration=6,
            network=FailsAt(2, RuntimeError("no")),
            stop_requested=lambda: bool((folder.record or {}).get("missing_metrics")),
        )
    assert folder.record["missing_metrics"] == [3]
    train(tmp_path / "run", iteration=6)
    assert folder.record["missing_metrics"] == []
    train(tmp_path / "whole", iteration=6)
    tables = [(tmp_path / name / "metrics.csv").read_bytes() for name in ("run", "whole")]
    assert tables[0] == tables[1]


def test_strict_metrics_end_the_training_after_a_checkpoint(tmp_path):
    network = FailsAt(2, RuntimeError("out of luck"))
    with pytest.raises(RuntimeError, match="out of luck"):
        train(tmp_path / "run", iteration=6, network=network, strict_metrics=True)
    assert tf.train.latest_checkpoint(tmp_path / "run" / "checkpoint").endswith("model-3")


def test_results_that_cannot_be_written_are_a_clear_error(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("common.training.parts.grids.save_png", full)
    with pytest.raises(UserError, match=r"run: results cannot be written.*No space left.*is safe"):
        train(tmp_path / "run")


def test_an_image_that_cannot_be_read_is_a_clear_error(tmp_path):
    source = noise_source(8)

    def read(indices):
        raise UserError("images/7.npy: found 3 bytes, expected 192")

    source.read = read
    with pytest.raises(UserError, match=r"^images/7.npy: found 3 bytes"):
        train(tmp_path / "run", evaluate=False, source=source)


def test_memory_is_logged_where_the_configuration_says_so(tmp_path):
    train(tmp_path / "run", iteration=2, evaluate=False, memory_summaries=True)
    events = EventAccumulator(str(tmp_path / "run" / "checkpoint"))
    events.Reload()
    rss, peak = (events.Scalars(f"memory/{name}")[-1].value for name in ("rss", "peak_rss"))
    assert 100e6 < rss <= 1.05 * 1024 * peak  # bytes, KiB


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
@pytest.mark.parametrize("length", [0, 10, -5])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(
    tmp_path, suffix, length, caplog
):
    variant = VARIANTS["no_gamma_cnn"]
    step = small_step(small_settings(variant), SEED)
    for global_id in (3, 7):
        step.generator.layers[1].bias.assign(step.generator.layers[1].bias * 0 + global_id)
        Checkpoints(tmp_path, generator=step.generator).save(global_id, {"from": global_id})
    newest = tmp_path / f"model-7.{suffix}"
    newest.write_bytes(newest.read_bytes()[:length])
    assert Checkpoints(tmp_path, generator=step.generator).restore() == (3, {"from": 3})
    assert "model-7 cannot be restored" in caplog.text
    assert (step.generator.layers[1].bias.numpy() == 3).all()


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{}", '{"global_id": 7, "written": 1}',
                                  '{"global_id": true, "written": {}}',
                                  '{"global_id": 7, "written": {"events": {"a": -1}}}',
                                  '{"global_id": 7, "written": {"events": []}}'])  # fmt: skip
def test_a_checkpoint_without_a_sane_record_of_progress_is_not_used(tmp_path, text, caplog):
    weight = tf.Variable(1.0)
    Checkpoints(tmp_path, weight=weight).save(3, {})
    progress = tf.Variable(text)
    tf.train.Checkpoint(progress=progress, weight=weight).write(str(tmp_path / "model-7"))
    assert Checkpoints(tmp_path, weight=weight).restore() == (3, {})
    assert "model-7 cannot be restored" in caplog.text


def test_a_kill_between_two_checkpoints_leaves_none_out(tmp_path):
    """The regular one, the permanent one and the file that names the newest are written in turn."""
    train(tmp_path / "run", iteration=8, evaluate=False)
    checkpoints = tmp_path / "run" / "checkpoint"
    expected = {path: path.read_bytes() for path in checkpoints.glob("**/model-*.data-*")}
    for missing in (checkpoints / "model-7.index", checkpoints / "global_id-7" / "model-7.index"):
        missing.unlink()
        train(tmp_path / "run", iteration=8, evaluate=False)
        assert missing.exists()
        assert {p: p.stat().st_size for p in expected} == {p: len(b) for p, b in expected.items()}
        assert tf.train.latest_checkpoint(checkpoints).endswith("model-7")


def test_a_requested_stop_leaves_the_checkpoints_as_they_would_be(tmp_path):
    options = {"iteration": 12, "save_checkpoint_freq": 4, "metric_freq": 12, "vis_freq": 3}
    options["evaluate"] = False
    train(tmp_path / "whole", **options)
    parts = tmp_path / "parts"
    with pytest.raises(InterruptedRunError, match="iteration 5"):
        train(parts, stop_requested=(parts / "sample" / "global_id-5.png").exists, **options)
    assert (parts / "checkpoint" / "model-5.index").exists()
    train(parts, **options)
    saved = [
        sorted(path.name for path in (folder / "checkpoint").glob("**/*.index"))
        for folder in (tmp_path / "whole", parts)
    ]
    assert saved[0] == saved[1]


@pytest.mark.slow
def test_a_stop_after_a_damaged_checkpoint_keeps_its_own(tmp_path):
    """The damaged one, of a later iteration, is set aside and no longer taken for the newest."""
    options = {"iteration": 16, "save_checkpoint_freq": 4, "metric_freq": 16, "vis_freq": 3}
    options["evaluate"] = False
    train(tmp_path / "whole", **options)
    parts, checkpoints = tmp_path / "parts", tmp_path / "parts" / "checkpoint"
    with pytest.raises(InterruptedRunError, match="iteration 11"):
        train(parts, stop_requested=(checkpoints / "model-11.index").exists, **options)
    for damaged in checkpoints.glob("model-11.data-*"), checkpoints.glob("*/model-11.data-*"):
        for path in damaged:
            path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InterruptedRunError, match="iteration 8, with a checkpoint"):
        train(parts, stop_requested=(parts / "sample" / "global_id-8.png").exists, **options)
    assert (checkpoints / "model-8.index").exists()
    assert tf.train.latest_checkpoint(checkpoints) == str(checkpoints / "model-8")
    assert (checkpoints / "damaged-model-11.index").exists()
    train(parts, **options)
    assert scalars_of(tmp_path / "whole") == scalars_of(parts)
    names = [
        sorted(str(path.relative_to(folder)) for path in folder.glob("checkpoint/**/model-*"))
        for folder in (tmp_path / "whole", parts)
    ]
    assert names[0] == names[1]


def test_a_stop_is_heard_in_the_metrics(tmp_path):
    """They can take hours; a checkpoint precedes them, and resuming makes them."""
    options = {"iteration": 8, "save_checkpoint_freq": 4, "metric_freq": 4}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(whole, **options)

    class Stopping(MeanColours):
        calls = 0

        def __call__(self, images):
            self.calls += 1
            return super().__call__(images)

    network = Stopping()
    begun = parts / "checkpoint" / "model-3.index"
    for _ in range(2):  # in training, and on resuming
        calls = network.calls
        with pytest.raises(InterruptedRunError, match="metrics after iteration 3"):
            train(parts, network=network, stop_requested=begun.exists, **options)
        assert not (parts / "metrics.csv").exists()
    assert network.calls == calls
    train(parts, **options)
    assert (whole / "metrics.csv").read_bytes() == (parts / "metrics.csv").read_bytes()
    assert scalars_of(whole) == scalars_of(parts)


@pytest.mark.parametrize("name", ["moving_mean", "moving_variance"])
def test_averages_that_are_not_finite_are_not_saved(tmp_path, name, monkeypatch):
    def spoil(self, count, run=CompiledIterations.run):
        rows = run(self, count)
        layer = next(x for x in self._step.generator.layers if hasattr(x, name))
        getattr(layer, name).assign(np.nan * getattr(layer, name))
        return rows

    monkeypatch.setattr(CompiledIterations, "run", spoil)
    with pytest.raises(DivergedError, match=r"not finite.*generator layer0\.batch_norm"):
        train(tmp_path / "run", evaluate=False)
    assert not list((tmp_path / "run" / "checkpoint").glob("*.index"))
    assert not list((tmp_path / "run" / "sample").iterdir())


def test_checkpoints_that_are_gone_are_not_taken_for_a_new_run(tmp_path):
    variant = VARIANTS["no_gamma_cnn"]
    step = small_step(small_settings(variant), SEED)
    Checkpoints(tmp_path, generator=step.generator).save(3, {})
    for path in tmp_path.glob("model-3.*"):
        path.unlink()
    with pytest.raises(UserError, match="no checkpoint can be restored"):
        Checkpoints(tmp_path, generator=step.generator).restore()


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    variant = VARIANTS["no_gamma_cnn"]
    steps = [small_step(small_settings(variant, width=w), SEED) for w in (2, 3)]
    Checkpoints(tmp_path, generator=steps[0].generator).save(0, {})
    with pytest.raises(UserError, match="no checkpoint can be restored"):
        Checkpoints(tmp_path, generator=steps[1].generator).restore()

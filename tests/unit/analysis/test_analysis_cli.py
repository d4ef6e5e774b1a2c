"""`python -m ssd_dist.analysis`: tables, files, and refusals in one sentence."""

import functools
import json
import subprocess
import sys

import pytest
import yaml

from ssd_dist.analysis import law, timing_report
from ssd_dist.analysis.__main__ import run
from ssd_dist.analysis.timing_report import TimingBudget, measure_timing
from ssd_dist.config import to_mapping

SMALL = ["--model", "resnet18", "--size", "64", "--num-classes", "4", "--batch-size", "2"]


def test_complexity(tmp_path, capsys):
    out = tmp_path / "deep" / "complexity.json"
    assert run(["complexity", *SMALL, "--optimizer", "adamw", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    shown = capsys.readouterr().out
    assert "backbone.features.layer1.0.conv1" in shown
    assert f"O(Σ n_{{l-1}}·f²·n_l·m_l²) = {found['total_macs']:,} multiply-accumulates" in shown
    assert f"O(weights) = {found['total_params']:,} parameters" in shown
    assert "A training step of 2 pictures with adamw" in shown
    keys = (
        "name kind in_channels out_channels kernel stride groups output_hw params macs dilation "
        "activations bytes_read bytes_written intensity"
    )
    assert all(set(keys.split()) <= set(layer) for layer in found["layers"])
    segments = found["segments"].values()
    for total, key in (("total_macs", "macs"), ("total_params", "params")):
        assert found[total] == sum(segment[key] for segment in segments)
        assert found[total] == sum(layer[key] for layer in found["layers"])
    assert found["total_bytes_moved"] == sum(
        segment["bytes_read"] + segment["bytes_written"] for segment in segments
    )
    assert found["training"]["batch_size"] == 2
    # Scores of C + 1 = 4 classes for the 6 priors of a cell.
    name = "head.classification_head.module_list.0"
    scores = next(layer for layer in found["layers"] if layer["name"] == name)
    assert scores["out_channels"] == 4 * 6


def test_timing(tmp_path, capsys, monkeypatch, small_config, small_dataset):
    short = TimingBudget(steps=0.0, inference=0.0, profiler=0.0)
    monkeypatch.setattr(timing_report, "peak_training_memory", lambda *_, **__: 7 * 2**20)
    monkeypatch.setattr(
        timing_report,
        "measure_timing",
        functools.partial(measure_timing, dataset=small_dataset, budget=short),
    )
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump(to_mapping(small_config)))
    out, trace = tmp_path / "timing.json", tmp_path / "trace.json"
    command = ["timing", "--model", str(config), "--num-classes", "6", "--batch-size", "4"]
    command += ["--no-devices", "--device", "cpu", "--trace", str(trace), "--json", str(out)]
    assert run(command) == 0
    timing = json.loads(out.read_text())
    assert timing["batch_size"] == 4
    assert {"train_step_ms", "inference_ms_per_image", "by_kind_percent"} <= set(timing)
    assert timing["devices"] is None
    assert json.loads(trace.read_text())["traceEvents"]
    assert "Training step by kind of operation" in capsys.readouterr().out
    # The memory that the count foretells stands beside the measured.
    assert run(["complexity", *command[1:7], "--json", str(out)]) == 0
    peak = json.loads(out.read_text())["training"]["memory"]["peak"]
    assert timing["peak_memory"]["predicted_bytes"] == peak


def test_law(tmp_path, capsys, monkeypatch, make_law):
    asked = {}

    def measure(**options):
        asked.update(options)
        return make_law(lambda weights, macs, bytes_: macs / 1e7)

    monkeypatch.setattr(law, "measure_law", measure)
    out = tmp_path / "law.json"
    assert run(["law", "--device", "cpu", "--seconds", "3", "--json", str(out)]) == 0
    assert (asked["device"].type, asked["time_budget_s"]) == ("cpu", 3)
    found = json.loads(out.read_text())
    assert set(found) == {"weights", "macs", "bytes", "law_details"}
    assert {"r2", "slope", "exponent"} <= set(found["macs"])
    assert found["law_details"]["sentence"].startswith("On this machine")
    assert "The law" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["complexity", "--model", "resnet-18"], "did you mean"),
        (["complexity", "--model", "ssd300_vgg16", "--size", "100"], "100 pixels leave nothing"),
        (["complexity", "--model", "resnet18", "--num-classes", "1"], "at least 2"),
        (["timing", "--model", "no.yaml"], "no configuration file no.yaml"),
        (["law", "--seconds", "0"], "--seconds must be above 0"),
    ],
)
def test_mistakes_are_told_in_one_sentence(command, message, capsys):
    assert run(command) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_folder_is_no_file_for_json(tmp_path, capsys):
    assert run(["complexity", *SMALL, "--json", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"error: --json {tmp_path} is a folder; give a file\n"


def test_help_does_not_load_torch():
    script = (
        "import sys\n"
        "from ssd_dist.analysis.__main__ import run\n"
        "try: run(['--help'])\n"
        "except SystemExit as end: print('torch' in sys.modules, end.code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False 0"
    assert all(word in done.stdout for word in ("complexity", "timing", "law"))

"""The whole timing of a small detector: its figures, its JSON, its trace, its tables."""

import json

import pytest
import torch
from rich.console import Console

from ssd_dist.analysis import timing_report
from ssd_dist.analysis.device_table import DeviceRow, DeviceTable
from ssd_dist.analysis.step_timing import TRAINING_SEGMENTS
from ssd_dist.analysis.timing import INFERENCE_SEGMENTS, Percentiles
from ssd_dist.analysis.timing_report import TimingBudget, measure_timing, sum_gap
from ssd_dist.analysis.timing_tables import tables
from ssd_dist.analysis.trace import MOST_BYTES, compact_json
from ssd_dist.engine import SECTIONS
from ssd_dist.model.ssd import build_model

CPU = torch.device("cpu")


def device_rows(*args, batch_size, **options):
    measured = DeviceRow(
        device="1 CPU thread",
        kind="threads",
        count=1,
        precision="fp32",
        step_ms=Percentiles(50.0, 40.0, 60.0),
        num_steps=3,
        images_per_second=80.0,
        speed_up=1.0,
    )
    gpu = DeviceRow(device="GPU", kind="gpu", count=1, precision="fp32", note="not here")
    return DeviceTable(batch_size, (measured, gpu))


@pytest.fixture(scope="module")
def measured(small_config, small_dataset, tmp_path_factory):
    """A report, its trace, and the model with the weights it had before."""
    trace = tmp_path_factory.mktemp("out") / "deep" / "trace.json"
    model = build_model(small_config.model, 5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing_report, "compare_devices", device_rows)
        patch.setattr(timing_report, "peak_training_memory", lambda *a, **k: 7 * 2**20)
        report = measure_timing(
            model,
            small_config,
            CPU,
            batch_size=4,
            dataset=small_dataset,
            data_name="eight pictures",
            trace=trace,
            predicted_bytes=5 * 2**20,
            budget=TimingBudget(steps=0.0, inference=0.0, profiler=0.0),
        )
    return report, trace, model, before


def test_json_has_its_keys(measured):
    timing = json.loads(json.dumps(measured[0].to_json(), allow_nan=False))
    assert tuple(timing["train_step_ms"]) == TRAINING_SEGMENTS
    assert tuple(timing["inference_segments_ms"]) == INFERENCE_SEGMENTS
    for values in (
        *timing["train_step_ms"].values(),
        *timing["inference_segments_ms"].values(),
        timing["inference_ms_per_image"],
    ):
        assert set(values) == {"median", "p10", "p90"}
        assert 0 <= values["p10"] <= values["median"] <= values["p90"]
    assert timing["inference_ms_per_image"] == timing["inference_segments_ms"]["total"]
    assert sum(timing["by_kind_percent"].values()) == pytest.approx(100)
    kinds = ("convolution", "batch_norm", "activation", "softmax_and_regression", "rest")
    assert all(timing["by_kind_percent"][kind] > 0 for kind in kinds)
    share = timing["by_kind_percent"]["batch_norm"]
    share += timing["by_kind_percent"]["softmax_and_regression"]
    assert timing["share_beside_convolution"]["percent"] == pytest.approx(share)  # no dropout
    assert timing["peak_memory"]["measured_bytes"] == 7 * 2**20
    assert timing["peak_memory"]["predicted_bytes"] == 5 * 2**20
    assert isinstance(timing["noisy"], bool)
    assert timing["noise"]["sentence"]
    assert timing["devices"]["rows"][1]["note"] == "not here"
    assert (timing["data"], timing["batch_size"]) == ("eight pictures", 4)
    assert (timing["device"], timing["precision"]) == ("cpu", "fp32")
    assert timing["trace"] == "trace.json"


def test_the_profiler_is_told_apart(measured):
    report = measured[0]
    profiler = report.to_json()["profiler"]
    assert profiler["without_ms"] == report.train_step_ms["total"].median
    assert profiler["with_ms"] > 0
    ratio = profiler["with_ms"] / profiler["without_ms"]
    assert profiler["overhead_percent"] == pytest.approx(100 * (ratio - 1))


def test_the_segments_sum_is_held_against_the_step():
    segments = {"forward": Percentiles(30.0, 0, 0), "backward": Percentiles(64.0, 0, 0)}
    assert sum_gap({**segments, "total": Percentiles(100.0, 0, 0)}) == pytest.approx(0.06)
    assert sum_gap({**segments, "total": Percentiles(94.0, 0, 0)}) == 0


def test_the_trace_is_a_chrome_trace_with_the_sections(measured):
    _, path, _, _ = measured
    assert [p.name for p in path.parent.iterdir()] == ["trace.json"]
    assert path.stat().st_size < MOST_BYTES
    trace = json.loads(path.read_text(encoding="utf-8"))
    labels = [e for e in trace["traceEvents"] if e.get("cat") == "user_annotation"]
    for name in set(SECTIONS) - {"communication"}:
        found = [e for e in labels if e["name"] == name]
        assert len(found) >= 2, name
        assert all(e["ph"] == "X" and e["dur"] >= 0 for e in found)
    assert any(e["name"] == "aten::conv2d" for e in trace["traceEvents"])
    assert str(path.parent) not in path.read_text(encoding="utf-8")


def test_the_model_keeps_its_weights(measured):
    _, _, model, before = measured
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_tables_show_what_was_found(measured):
    report = measured[0]
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    for table in tables(report):
        console.print(table)
    text = " ".join(console.export_text().split())  # sentences are wrapped anywhere
    for name in (*TRAINING_SEGMENTS, *INFERENCE_SEGMENTS, "softmax and regression"):
        assert name in text
    assert f"{report.train_step_ms['total'].median:.2f}" in text
    assert "7 MiB measured" in text
    assert "5 MiB predicted" in text
    assert "not here" in text
    assert "80.00" in text


def test_a_long_trace_loses_its_shortest_operations():
    def event(name, duration, category="cpu_op"):
        return {"name": name, "ph": "X", "cat": category, "dur": duration, "ts": -duration}

    events = [event("backward", 1, "user_annotation")]
    events += [event(f"op_{duration:03}", duration) for duration in range(1, 101)]
    trace = {"schemaVersion": 1, "traceEvents": [*events, {"cat": "fwdbwd", "ph": "s"}]}
    whole = compact_json(trace, most_bytes=10**6)
    assert json.loads(whole) == trace
    half = compact_json(trace, most_bytes=len(whole) // 2)
    assert len(half) <= len(whole) // 2
    kept = [e["name"] for e in json.loads(half)["traceEvents"]]
    longest = [f"op_{duration:03}" for duration in range(100, 101 - len(kept), -1)]
    assert kept == [*longest, "backward"]  # in the order of time
    assert 40 < len(kept) < 55

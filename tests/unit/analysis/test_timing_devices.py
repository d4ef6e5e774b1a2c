"""The table of devices: its arithmetic by hand, and how it goes about what there is and is not."""

import pytest
import torch
from torch.multiprocessing import ProcessRaisedException

from ssd_dist.analysis import devices
from ssd_dist.analysis.device_table import DeviceRow, DeviceTable, with_speed_ups
from ssd_dist.analysis.devices import affordable_batch_size, compare_devices, thread_counts
from ssd_dist.analysis.processes import ParallelSteps
from ssd_dist.analysis.timing import percentiles
from ssd_dist.config import replace_at


def row(kind, count, precision, rate, note=""):
    return DeviceRow(
        device=f"{count} {kind}",
        kind=kind,
        count=count,
        precision=precision,
        images_per_second=rate,
        note=note,
    )


def test_threads_go_up_in_powers_of_two_to_all_there_are():
    assert [thread_counts(n) for n in (1, 2, 5, 8)] == [[1], [1, 2], [1, 2, 4, 5], [1, 2, 4, 8]]


def test_the_batch_is_as_large_as_there_is_time():
    # In 2 precisions 3 steps of the whole batch: by 1 and by 2 threads, twice by 2 processes.
    steps = 2 * 3 * (1 + 1 / 2 + 2 / 2)
    assert affordable_batch_size(8, 1.0, [1, 2], seconds=8 * steps) == 8
    assert affordable_batch_size(8, 1.0, [1, 2], seconds=8 * steps - 1) == 4
    assert affordable_batch_size(12, 1.0, [1, 2], seconds=12 * steps) == 12
    assert affordable_batch_size(12, 1.0, [1, 2], seconds=12 * steps - 1) == 8
    assert affordable_batch_size(8, 1.0, [1, 2], seconds=0) == 2
    assert affordable_batch_size(1, 1.0, [1, 2], seconds=0) == 1


def test_speed_ups_are_against_one_thread_in_fp32():
    rows = [row("threads", 1, "bf16", 8.0), row("threads", 1, "fp32", 4.0)]
    rows += [row("threads", 2, "fp32", None, "left out"), row("gpu", 1, "fp32", 50.0)]
    assert [r.speed_up for r in with_speed_ups(rows)] == [2.0, 1.0, None, 12.5]
    unmeasured = [row("threads", 1, "fp32", None), row("gpu", 1, "fp32", 50.0)]
    assert [r.speed_up for r in with_speed_ups(unmeasured)] == [None, None]


def test_the_gpu_beside_the_cpu_at_its_fastest():
    rows = (row("threads", 1, "fp32", 4.0), row("processes", 2, "bf16", 10.0))
    measured = DeviceTable(8, (*rows, row("gpu", 1, "fp32", 50.0), row("gpu", 1, "bf16", 125.0)))
    assert measured.gpu_over_cpu() == 12.5
    assert "trained 10 times faster on a GTX 1070 than on a five-core CPU" in measured.sentence()
    assert "here the GPU is 12.5 times as fast" in measured.sentence()
    without = DeviceTable(8, (*rows, row("gpu", 1, "fp32", None, "not here")))
    assert without.gpu_over_cpu() is None
    assert without.sentence().endswith("there is no GPU here to compare the CPU with.")
    assert without.to_json()["thesis"]["gpu_over_cpu"] == 10.0


@pytest.fixture
def machine(monkeypatch):
    """Two processors and no GPU; steps of 100 ms over threads and faster by a half in bf16, and
    what was asked of the processes."""
    asked = {}

    def time_steps(training, budget):
        factor = 0.5 if training.config.precision == "bf16" else 1.0
        return [100.0 * factor / torch.get_num_threads()] * budget.least

    def time_processes(config, num_classes, dataset, **options):
        asked.update(options, num_classes=num_classes)
        steps = ParallelSteps(together=(80.0, 70.0, 60.0), apart=(64.0, 55.0, 66.0))
        return dict.fromkeys(options["precisions"], steps)

    monkeypatch.setattr(devices, "num_processors", lambda: 2)
    monkeypatch.setattr(devices, "time_steps", time_steps)
    monkeypatch.setattr(devices, "time_processes", time_processes)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    return asked


@pytest.fixture
def compare(machine, small_model, small_config, small_dataset):
    def run(**options):
        options = {"batch_size": 4, "seconds": 1000.0, **options}
        threads = torch.get_num_threads()
        table = compare_devices(small_model, small_config, small_dataset, **options)
        assert torch.get_num_threads() == threads
        return table

    return run


def test_a_machine_without_a_gpu(compare, machine):
    table = compare()
    assert table.batch_size == 4
    rows = {(r.device, r.precision): r for r in table.rows}
    assert len(rows) == 8
    medians = {key: r.step_ms and r.step_ms.median for key, r in rows.items()}
    assert medians == {
        ("1 CPU thread", "fp32"): 100.0,
        ("2 CPU threads", "fp32"): 50.0,
        ("1 CPU thread", "bf16"): 50.0,
        ("2 CPU threads", "bf16"): 25.0,
        ("2 CPU processes", "fp32"): 70.0,
        ("2 CPU processes", "bf16"): 70.0,
        ("GPU", "fp32"): None,
        ("GPU", "bf16"): None,
    }
    assert rows["2 CPU threads", "bf16"].images_per_second == pytest.approx(160.0)
    assert rows["2 CPU threads", "bf16"].speed_up == pytest.approx(4.0)
    parallel = rows["2 CPU processes", "fp32"]
    assert parallel.communication_ms == pytest.approx(70.0 - 64.0)
    assert parallel.step_ms == percentiles([60.0, 70.0, 80.0])
    for precision in ("fp32", "bf16"):
        gpu = rows["GPU", precision]
        assert gpu.note == "not here"
        assert (gpu.step_ms, gpu.images_per_second, gpu.speed_up) == (None, None, None)
    assert machine["num_processes"] == 2
    assert machine["num_classes"] == 5


def test_what_is_too_slow_is_not_tried_in_processes(compare, machine, monkeypatch):
    measure = devices.time_steps

    def no_bf16(training, budget):
        return [] if training.config.precision == "bf16" else measure(training, budget)

    monkeypatch.setattr(devices, "time_steps", no_bf16)
    rows = [r for r in compare().rows if r.precision == "bf16"]
    assert machine["precisions"] == ["fp32"]
    assert [r.note for r in rows] == ["left out: too slow here"] * 3 + ["not here"]


def test_rows_whose_time_does_not_come_say_so(compare, machine):
    notes = {r.note for r in compare(seconds=-1.0).rows}
    assert notes == {"left out: no time for it", "not here"}
    assert not machine


def test_batch_norm_needs_two_pictures_a_process(compare):
    notes = [r.note for r in compare(batch_size=2).rows if r.kind == "processes"]
    assert notes == ["left out: 2 pictures are too few for 2 processes"] * 2


def test_every_part_of_a_batch_has_two_pictures(
    compare, machine, monkeypatch, small_model, small_config, small_dataset
):
    asked = []
    set_up = devices.set_up_training

    def watched(model, config, worker, dataset, batch_size):
        asked.append(batch_size)
        return set_up(model, config, worker, dataset, batch_size)

    monkeypatch.setattr(devices, "set_up_training", watched)
    config = replace_at(small_config, {"accumulation": 2})
    table = compare_devices(small_model, config, small_dataset, batch_size=4, seconds=1000.0)
    assert table.batch_size == 4
    assert set(asked) == {4}
    notes = [r.note for r in table.rows if r.kind == "processes"]
    assert notes == ["left out: 4 pictures are too few for 2 processes"] * 2


def test_processes_that_fail_are_told(compare, monkeypatch):
    def fail(*args, **options):
        raise ProcessRaisedException("Traceback:\n  …\nRuntimeError: no port", 1, 2)

    monkeypatch.setattr(devices, "time_processes", fail)
    notes = [r.note for r in compare().rows if r.kind == "processes"]
    assert notes == ["failed: RuntimeError: no port"] * 2


def test_every_gpu_has_its_rows(compare, monkeypatch):
    trained_on = []

    def times_on(plan, precision, worker, budget):
        trained_on.append((worker.device, precision))
        return [10.0]

    monkeypatch.setattr(devices, "_times_on", times_on)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GTX 1070")
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation
    )
    rows = [r for r in compare().rows if r.kind == "gpu"]
    assert [(r.device, r.precision, r.note) for r in rows] == [
        ("GPU 0: GTX 1070", "fp32", ""),
        ("GPU 1: GTX 1070", "fp32", ""),
        ("GPU 0: GTX 1070", "bf16", "left out: it has no bf16"),
        ("GPU 1: GTX 1070", "bf16", "left out: it has no bf16"),
    ]
    assert rows[0].images_per_second == 400.0
    gpus = [device for device, _ in trained_on if device.type == "cuda"]
    assert gpus == [torch.device("cuda", 0), torch.device("cuda", 1)]

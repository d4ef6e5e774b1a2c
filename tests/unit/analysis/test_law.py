"""The law on times that are made from a known predictor, and once on real ones."""

import dataclasses
import io
import json
import re

import pytest
import torch
from rich.console import Console

from ssd_dist.analysis.law import PREDICTORS, measure_law, table
from ssd_dist.analysis.sweep import Point
from ssd_dist.analysis.timing import Percentiles
from ssd_dist.config import ModelConfig


def from_weights(weights, macs, bytes_):
    return 5e-6 * weights


def from_macs(weights, macs, bytes_):
    return 3e-8 * macs


def from_bytes(weights, macs, bytes_):
    return 4e-7 * bytes_


def from_nothing(weights, macs, bytes_):
    return 50.0


def shown(law):
    console = Console(file=io.StringIO(), width=140)
    for grid in table(law):
        console.print(grid)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("made_from", "best", "linear"),
    [
        (from_weights, "weights", "scales linearly with the number of weights"),
        (from_macs, "macs", "does not scale linearly with the number of weights"),
        (from_bytes, "bytes", "does not scale linearly with the number of weights"),
    ],
)
def test_the_sentence_names_what_time_was_made_from(make_law, made_from, best, linear):
    law = make_law(made_from)
    fits = law.fits("training")
    assert max(fits, key=lambda key: fits[key].line.r2) == best
    assert fits[best].line.r2 > 0.95
    assert 1.0 in fits[best].exponent
    assert f"(cpu, 2 threads) {PREDICTORS[best]} predict the time of" in law.sentence
    assert linear in law.sentence
    assert law.sentence.count(". ") == 0  # one sentence
    assert law.sentence.endswith(".")


def test_weights_that_count_with_another_power_are_not_linear(make_law):
    law = make_law(lambda weights, macs, bytes_: 1e-3 * weights**0.7, noise=0.01)
    fit = law.fits("training")["weights"]
    assert fit.line.r2 > 0.9
    assert 0.7 in fit.exponent
    assert 1.0 not in fit.exponent
    assert "weights predict the time" in law.sentence
    assert "does not scale linearly with the number of weights" in law.sentence


def test_times_that_follow_nothing(make_law):
    law = make_law(from_nothing, noise=0.3)
    assert "say most, which is little, about the time" in law.sentence


def test_the_point_that_breaks_the_law_is_named(make_law):
    law = make_law(from_macs)
    odd = law.points[6]
    ms = odd.training.ms
    slow = dataclasses.replace(odd.training, ms=Percentiles(3 * ms.median, 3 * ms.p10, 3 * ms.p90))
    points = (*law.points[:6], dataclasses.replace(odd, training=slow), *law.points[7:])
    broken = dataclasses.replace(law, points=points)
    named = f"the law breaks most at {odd.point.name}, with "
    assert named in broken.sentence
    factor = float(re.search(re.escape(named) + r"([\d.]+) times", broken.sentence)[1])
    assert 2 < factor < 3  # the fit itself gives way a little


def test_computing_and_moving_add_up(make_law):
    law = make_law(lambda w, macs, bytes_: 2 + 3e-8 * macs + 4e-7 * bytes_, noise=1e-6)
    both = law.fit_on_both("training")
    assert [slope.value for slope in both.slopes] == pytest.approx([3e-8, 4e-7], rel=1e-3)
    assert both.intercept.value == pytest.approx(2, rel=1e-2)
    assert both.r2 == pytest.approx(1)
    assert all(fit.line.r2 < 0.9 for fit in law.fits("training").values())
    assert "operations and bytes together 1.00" in law.sentence


def test_inference_has_fits_of_its_own(make_law):
    law = make_law(from_macs, noise=1e-6)
    fits = law.fits("training")["macs"], law.fits("inference")["macs"]
    # A third of the operations in a third of the time.
    assert fits[0].line.slopes[0].value == pytest.approx(3e-8, rel=1e-4)
    assert fits[1].line.slopes[0].value == pytest.approx(3e-8, rel=1e-4)


def test_spread_and_correlation(make_law):
    law = make_law(from_macs)
    assert law.spread == pytest.approx(0.3)  # 0.9 to 1.2 of the median at every point
    assert set(law.correlation) == {"weights_macs", "weights_bytes", "macs_bytes"}
    points = tuple(dataclasses.replace(p, weights=round(p.training.macs / 100)) for p in law.points)
    same = dataclasses.replace(law, points=points).correlation
    assert same["weights_macs"] == pytest.approx(1)
    assert same["weights_bytes"] == pytest.approx(same["macs_bytes"], abs=1e-4)


def test_json_has_the_reports_keys(make_law):
    law = make_law(from_macs)
    mapping = json.loads(json.dumps(law.to_json(), allow_nan=False))
    assert set(mapping) == {"law", "law_details"}
    assert set(mapping["law"]) == {"weights", "macs", "bytes"}
    for fit in mapping["law"].values():
        assert {"r2", "slope", "exponent", "intercept", "exponent_interval", "log_r2"} <= set(fit)
        low, high = fit["exponent_interval"]
        assert low < fit["exponent"] < high
    details = mapping["law_details"]
    assert details["sentence"] == law.sentence
    assert len(details["points"]) == len(law.points)
    point = details["points"][3]
    fit = mapping["law"]["macs"]
    predicted = fit["factor"] * point["training"]["macs"] ** fit["exponent"]
    assert point["measured_by_predicted"]["macs"] == pytest.approx(
        point["training"]["ms"]["median"] / predicted
    )
    assert [s["extrapolated"] for s in details["scaling"]["steps"]] == [False] * 2 + [True] * 3


def test_tables_show_every_point_and_mark_what_was_not_measured(make_law):
    law = make_law(from_macs)
    text = shown(law)
    for measured in law.points:
        assert measured.point.name in text
    rows = {
        int(row[1]): row[2] for row in re.finditer(r"│ +(\d+) │ (measured|extrapolated) +│", text)
    }
    assert rows == {
        1: "measured",
        2: "measured",
        8: "extrapolated",
        64: "extrapolated",
        512: "extrapolated",
    }
    assert " ".join(law.sentence.split()[:6]) in text


def test_a_small_sweep_from_end_to_end():
    """Real steps of four small detectors; the workers are one, so that no process waits."""

    def point(varied, backbone, image_size, batch_size):
        model = ModelConfig(
            backbone=backbone, image_size=image_size, feature_strides=(8, 16), neck_channels=16
        )
        return Point(varied, model, batch_size)

    points = (
        point("input size", "test_resnet.r160_in1k", 64, 2),
        point("input size", "test_resnet.r160_in1k", 128, 2),
        point("batch", "test_resnet.r160_in1k", 64, 1),
        point("width", "test_efficientnet.r160_in1k", 64, 2),
    )
    lines = []
    law = measure_law(
        device=torch.device("cpu"),
        time_budget_s=0,
        on_progress=lines.append,
        points=points,
        num_workers=(1,),
    )
    assert [measured.point for measured in law.points] == list(points)
    assert law.num_threads == torch.get_num_threads()
    assert law.sentence.startswith("On this machine (cpu, ")
    json.dumps(law.to_json(), allow_nan=False)
    assert [step.workers for step in law.scaling.steps] == [1]
    assert law.scaling.ring is None
    assert "nothing to extrapolate from" in shown(law)
    assert any("scaling" in line for line in lines)

"""The law's plots: what they show, and that they take their colours from the page."""

import dataclasses
import re
from xml.etree import ElementTree

import pytest

from ssd_dist.report.law_plots import law_plots

FROM_PAGE = {"currentColor", "var(--muted)", "var(--rule)", "var(--paper)"} | {
    f"var(--series-{i})" for i in range(7)
}


def from_macs(weights, macs, bytes_):
    return 3e-8 * macs


def texts(svg):
    root = ElementTree.fromstring(str(svg).replace("<svg ", '<svg xmlns:xlink="x" ', 1))
    return ["".join(e.itertext()).strip() for e in root.iter() if e.tag.endswith("text")]


@pytest.fixture
def plots(make_law):
    return law_plots(make_law(from_macs).to_json())


def test_a_plot_for_each_predictor_and_two_for_the_scaling(plots):
    captions = [caption for caption, _ in plots]
    assert [caption.partition(":")[0] for caption in captions[:3]] == [
        "Training time against weights",
        "Training time against multiply-accumulates",
        "Training time against bytes moved",
    ]
    assert "extrapolated" in captions[3]
    assert "1 GB/s, 0.2 ms" in captions[4]
    assert len(plots) == 5


def test_captions_hold_the_figures(make_law):
    report = make_law(from_macs).to_json()
    fit = report["law"]["macs"]
    caption, _ = law_plots(report)[1]
    assert f"R² {fit['r2']:.2f}, exponent {fit['exponent']:.2f}" in caption


def test_colours_come_from_the_page_and_text_stays_text(plots):
    for _, svg in plots:
        colours = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", svg)) - {"none", "#000000"}
        assert colours <= FROM_PAGE
        assert texts(svg)
    assert len({svg for _, svg in plots}) == len(plots)


def test_what_is_varied_differs_in_shape_too(plots):
    """Each kind of point has a marker of its own: its outline occurs once among the definitions."""
    _, svg = plots[1]
    assert {"width", "depth", "input size", "batch", "power law", "line"} <= set(texts(svg))
    markers = re.findall(r'<path id="(m[0-9a-f]+)" d="([^"]+)"', svg)
    used = [
        outline
        for name, outline in markers
        if re.search(rf'xlink:href="#{name}"[^>]*style="fill: var\(--series-\d\)', svg)
    ]
    assert len(set(used)) >= 4


def test_the_point_that_breaks_the_law_is_named(make_law):
    law = make_law(from_macs)
    ms = law.points[3].training.ms
    slow = dataclasses.replace(ms, median=4 * ms.median, p90=5 * ms.p90)
    odd = dataclasses.replace(
        law.points[3], training=dataclasses.replace(law.points[3].training, ms=slow)
    )
    report = dataclasses.replace(law, points=(*law.points[:3], odd, *law.points[4:])).to_json()
    factor = report["law_details"]["points"][3]["measured_by_predicted"]["macs"]
    assert factor > 2
    _, svg = law_plots(report)[1]
    assert f"resnet18 192 px, batch 4: {factor:.2g} ×" in " ".join(texts(svg))


def test_extrapolated_bars_are_dashed(make_law):
    _, svg = law_plots(make_law(from_macs, num_workers=(1, 2, 4)).to_json())[3]
    bars = re.findall(r'style="(fill: [^"]*)"', svg)
    hollow = [bar for bar in bars if "stroke-dasharray" in bar and "var(--paper)" in bar]
    assert len(hollow) == 2 * 3  # computing and communication of 8, 64 and 512 workers
    labels = texts(svg)
    assert [w for w in ("1", "2", "4", "8", "64", "512") if w in labels] == [
        "1",
        "2",
        "4",
        "8",
        "64",
        "512",
    ]


def test_one_worker_alone_has_no_all_reduce(make_law):
    plots = law_plots(make_law(from_macs, num_workers=(1,)).to_json())
    assert len(plots) == 4
    assert "extrapolated" not in plots[3][0]

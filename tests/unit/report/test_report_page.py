import dataclasses
import re
from xml.etree import ElementTree

import pytest
from report_pages import Page, section, words

from ssd_dist.config import Config, replace_at, to_mapping
from ssd_dist.report.render import render_html


@pytest.fixture(scope="module")
def html(content):
    return render_html(content)


def test_nothing_is_fetched(html):
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert all(url.startswith("#") for url in re.findall(r"url\(([^)]*)\)", html))
    links = Page(html).links
    assert any(link.startswith("data:image/jpeg;base64,") for link in links)
    assert all(link.startswith(("#", "data:")) or link == "trace.json" for link in links)


def test_every_link_within_the_page_has_its_end(html):
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    ends = set(page.ids)
    assert {link[1:] for link in page.links if link.startswith("#")} <= ends
    assert set(re.findall(r"url\(#([^)]*)\)", html)) <= ends


def test_markup_in_names_is_text(brief_with):
    html = render_html(
        brief_with(
            model_name="<i>model</i>",
            data_name="<img src=x>",
            checkpoint="</div><script>",
            provenance={"<u>": {"<s>": "</script>"}},
        )
    )
    page = Page(html)
    assert page.tags.count("script") == 1
    assert not {"i", "u", "s", "img"} & set(page.tags)
    assert "alert('dog')" in "".join(page.text)
    assert "<script>alert" not in html
    assert "cat <b>&</b> co" in "".join(page.text)


def test_the_first_page_is_the_answer(html, content):
    answer = html[html.index("<header") : html.index("<nav")]
    text = words(answer)
    assert f"{content.voc.map_11pt:.3f}" in text
    low, high = content.summary.map_11pt_interval
    assert f"95 % interval {low:.3f} to {high:.3f}" in text
    assert "0.750 on the validation split" in text
    # Found at the best thresholds: both of `right`, one cat of `wrong`; a dog there is false.
    assert "3 pictures with 4 objects of 2 classes" in text
    assert "finds 3 of them (75\u202f%), and 25\u202f% of what it reports is false" in text
    assert "4.00 ms" in text
    assert "4.00 k" in text
    assert "16.0 kB in fp32" in text
    assert "0.00300 GMACs" in text
    assert "CPU, 1 thread" in text
    assert "2.5\u2009×\u200910−4" in text
    assert "no objects in this split" in text
    assert "A search of 4 trials chose α, λ and the learning rate by validation mAP" in text
    assert "the test split took no part" in text
    assert "Mind that" not in text


@pytest.mark.parametrize(
    ("num_seen", "told"),
    [
        (3, "used the pictures of the split trainval: on new pictures expect less"),
        (2, "used 2 of these 3 pictures: on new pictures expect less"),
        (None, None),
    ],
)
def test_a_split_that_was_seen_is_not_praised(brief_with, trial, num_seen, told):
    text = words(
        render_html(brief_with(split="trainval", num_seen=num_seen, leaderboard=[trial(0, 0.4)]))
    )
    assert "took no part" not in text
    assert ("Mind that" in text) == (told is not None)
    assert told is None or told in text


def test_levels_never_reached_are_said(html):
    ranks = html[html.index('<table class="ranks">') :]
    ranks = ranks[: ranks.index("</table>")]
    # The cats' recall ends at 2/3: 0.7, 0.8, 0.9 and 1 are never reached; the dog is found.
    assert ranks.count("never<small>reached</small>") == 4


def test_sections_without_content_are_left_out(content_with):
    html = render_html(content_with(leaderboard=None, training_curve=()))
    page = Page(html)
    assert not {"search", "training", "law"} & set(page.ids)
    assert not {"#search", "#training", "#law"} & set(page.links)
    assert {"accuracy", "pictures", "complexity", "timing", "provenance"} <= set(page.ids)


@pytest.fixture(scope="module")
def many_classes(brief_with, annotation, detected):
    """30 classes in 30 pictures' corners; those from the ninth on are missed, and the first is
    twice taken for the second."""
    names = [f"class {i}" for i in range(30)]
    boxes = [[i, 0, i + 1, 1] for i in range(30)]
    annotations = [annotation(str(k), boxes, range(1, 31)) for k in range(2)]
    found = [detected(str(k), boxes[:8], [2, *range(2, 9)], [0.5] * 8) for k in range(2)]
    return render_html(brief_with(class_names=names, annotations=annotations, detections=found))


def test_many_classes_show_both_ends_on_the_first_page(many_classes):
    answer = many_classes[many_classes.index("<header") : many_classes.index("<nav")]
    shown = [f"class {i}</th>" in answer for i in range(30)]
    assert shown[2:8] == [True] * 6  # found, and nothing else is taken for them
    assert sum(shown) == 12


def test_many_classes_have_their_largest_confusions_instead_of_a_matrix(many_classes):
    assert 'class="matrix"' not in many_classes
    accuracy = section(many_classes, "accuracy")
    rows = re.findall(
        r'<th scope="row" data-sort="([^"]*)">[^<]*</th><td data-sort="([^"]*)">', accuracy
    )
    assert ("class 0", "class 1") in rows
    assert ("class 9", "nothing") in rows
    assert len(rows) <= 30
    assert "<details><summary>The curves of 30 classes</summary>" in accuracy


def test_the_confusion_matrix_has_the_background_last(html, content):
    matrix = html[html.index('<table class="matrix">') :]
    matrix = matrix[: matrix.index("</table>")]
    cells = re.findall(r'<td class="(right|wrong)"[^>]*>([^<]+)</td>', matrix)
    counts = [0 if text == "·" else int(text) for _, text in cells]
    # Cats: 2 found, 1 missed; the dog found, and one that is none.
    assert counts == [2, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0]
    assert [kind for kind, _ in cells[:5]] == ["right", "wrong", "wrong", "wrong", "wrong"]
    assert sum(counts) == content.summary.confusion.sum()


def test_mistakes_stand_by_what_they_cost(html, content):
    shown = re.findall(r"<b>(\w+)</b><span class=\"meaning\">", section(html, "accuracy"))
    lost = content.summary.map_lost
    assert sorted(shown) == sorted(lost)
    assert [lost[kind] for kind in shown] == sorted(lost.values(), reverse=True)


def test_a_measure_that_was_left_out_is_not_shown(html, content, brief_with):
    assert "By COCO’s measures" in html
    without = dataclasses.replace(content.summary, coco=None, map_11pt_interval=None)
    html = render_html(brief_with(summary=without))
    assert "COCO" not in html
    assert "95 % interval" not in html


def test_complexity_adds_up(html):
    text = words(section(html, "complexity"))
    assert "3\u202f000\u202f000 multiply-accumulates" in text
    assert "1 of the 2 layers with weights does half of the work" in text
    assert "at most 190 pairs" in text
    assert "the peak is 130 kB, and 150 kB were measured (looked at)" in text
    bars = re.findall(r'<rect class="series-0"', section(html, "complexity"))
    assert len(bars) == 6  # two layers in three strips


def test_the_segments_of_a_step_and_what_was_not_there(html):
    timing = section(html, "timing")
    text = words(timing)
    assert "A training step of 4 pictures takes 100 ms, 40.0 pictures a second" in text
    assert "communication" not in text  # took no time in one process
    shares = [float(s) for s in re.findall(r"flex-grow: ([0-9.]+)", timing)]
    assert shares == pytest.approx([10, 30, 60, 75, 25])
    assert "not here" in text
    assert "here they take 7.0 %, within that range" in text
    assert 'href="trace.json"' in timing
    assert "--analysis full" in text  # adds what is missing: the law


def test_what_was_not_measured_is_said_with_its_command(brief_with):
    timing = {
        "device": "cpu",
        "num_threads": 2,
        "inference_ms_per_image": {"median": 4.0, "p10": 3.5, "p90": 6.0},
    }
    page = section(render_html(brief_with(timing=timing)), "timing")
    assert "<table" not in page
    assert "Only the time of a picture was measured" in page
    assert "--analysis quick" in page


def test_why_the_training_step_is_missing_is_said(brief_with):
    timing = {
        "device": "cpu",
        "num_threads": 2,
        "inference_ms_per_image": {"median": 4.0, "p10": 3.5, "p90": 6.0},
        "left_out": "the training step was left out: too few",
    }
    page = section(render_html(brief_with(timing=timing)), "timing")
    assert (
        "Only the time of a picture was measured: the training step was left out: too few." in page
    )
    assert "--analysis quick" not in page


@pytest.mark.parametrize(
    ("mirror", "operations", "rate"),
    [
        ("none", "0.00300 GMACs", "750 MMAC/s"),
        ("horizontal", "0.00600 GMACs", "1.50 GMAC/s"),
        ("both", "0.0120 GMACs", "3.00 GMAC/s"),
    ],
)
def test_operations_are_those_of_all_mirror_images(brief_with, mirror, operations, rate):
    """3 million an image; a picture takes 4 ms with all of its own."""
    config = replace_at(Config(), {"postprocess.mirror": mirror})
    html = render_html(brief_with(config=to_mapping(config)))
    assert operations in words(html[html.index("<header") : html.index("<nav")])
    assert rate in words(section(html, "timing"))


def test_a_noisy_machine_is_a_warning(html, content, brief_with):
    noisy = {**content.timing, "noisy": True}
    assert "warning" in section(render_html(brief_with(timing=noisy)), "timing")
    assert "warning" not in section(html, "timing")


def test_the_law_marks_what_is_extrapolated(brief_with, make_law):
    law = make_law(lambda weights, macs, bytes_: 3e-8 * macs)
    html = render_html(brief_with(law=law.to_json()))
    page = section(html, "law")
    assert html.count('href="#law"') == 1
    assert law.sentence in words(page)
    assert page.count('<tr class="guess">') == 3
    assert page.count("<td>extrapolated</td>") == 3
    assert page.count("<td>measured</td>") == 2
    assert len(re.findall(r'<svg class="plot"', page)) == 5
    assert "--analysis full" not in html


def test_plots_take_their_colours_from_the_page_and_are_well_formed(html):
    plots = re.findall(r'<svg class="plot".*?</svg>', html, flags=re.DOTALL)
    # Two classes that occur; the search's history, epochs, three slices, parallel coordinates and
    # three pairs; three of the training.
    assert len(plots) == 2 + 9 + 3
    for plot in plots:
        root = ElementTree.fromstring(plot.replace("<svg ", '<svg xmlns:xlink="x" ', 1))
        assert root.attrib.keys() == {"class", "viewBox"}
        texts = [element for element in root.iter() if element.tag.endswith("text")]
        assert texts
        colours = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", plot)) - {"none"}
        visible = {c for c in colours if c != "#000000"}  # the hidden backdrop has it
        assert visible <= {"currentColor", "var(--muted)", "var(--rule)", "var(--paper)"} | {
            f"var(--series-{i})" for i in range(7)
        }


def test_the_l2_term_does_not_stretch_the_axis_of_the_loss(brief_with):
    """It is no part of Eq. 1, and may be ten times as large."""
    curve = [
        {"epoch": i, "loss": 2.0, "loss_conf": 1.5, "loss_loc": 0.5, "l2_term": 40.0}
        for i in (1, 2)
    ]
    training = section(render_html(brief_with(training_curve=curve)), "training")
    loss, l2 = re.findall('<figure class="panel">.*?</figure>', training, re.DOTALL)
    assert "<b>Training loss</b>" in loss
    assert "Eq. 1" in words(loss)
    assert "40" not in words(loss)
    assert "<b>L2 term</b>" in l2
    assert "40" in words(l2)
    assert "L2 is λ·ΣW2, which is not in Eq. 1" in words(training)
    without = [{"epoch": 1, "loss": 2.0}]
    assert "L2" not in section(render_html(brief_with(training_curve=without)), "training")

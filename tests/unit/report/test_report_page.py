import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from ssd_dist.report.render import render_html

VOID = {"meta", "link", "br", "hr", "img", "input", "col"}


class Page(HTMLParser):
    """Checks that the elements are nested, and gathers ids, links, headings and text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.ids, self.links, self.text = [], [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in {"href", "src", "xlink:href", "srcset", "data"}:
                self.links.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text.append(data)


@pytest.fixture
def html(content):
    return render_html(content)


def test_nothing_is_fetched(html):
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert all(url.startswith("#") for url in re.findall(r"url\(([^)]*)\)", html))
    links = Page(html).links
    assert any(link.startswith("data:image/jpeg;base64,") for link in links)
    assert all(link.startswith(("#", "data:")) for link in links)


def test_every_link_within_the_page_has_its_end(html):
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    ends = set(page.ids)
    assert {link[1:] for link in page.links if link.startswith("#")} <= ends
    assert set(re.findall(r"url\(#([^)]*)\)", html)) <= ends


def test_markup_in_names_is_text(content_with):
    html = render_html(
        content_with(
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
    text = re.sub(r"[ \n]+", " ", "".join(Page(answer).text))
    assert f"{content.result.map_11pt:.3f}" in text
    assert "0.750 on the validation split" in text
    # Found at the best thresholds: both of `right`, one cat of `wrong`; a dog there is false.
    assert "3 pictures with 4 objects of 2 classes" in text
    assert "finds 3 of them (75\u202f%), and 25\u202f% of what it reports is false" in text
    assert "4.00 ms" in text
    assert "4.00 k" in text
    assert "0.00300 GMACs" in text
    assert "2.5\u2009×\u200910−4" in text
    assert "no objects in this split" in text
    assert "won a search of 4 trials" in text
    assert "the test split took no part" in text
    assert "Mind that" not in text


def test_a_split_that_chose_the_checkpoint_is_not_praised(content_with):
    text = "".join(Page(render_html(content_with(split="val"))).text)
    assert "took no part" not in text
    assert "Mind that" in text


def test_levels_never_reached_are_said(html):
    ranks = html[html.index('<table class="ranks">') :]
    ranks = ranks[: ranks.index("</table>")]
    # The cats' recall ends at 2/3: 0.7, 0.8, 0.9 and 1 are never reached; the dog is found.
    assert ranks.count("never<small>reached</small>") == 4


def test_sections_without_content_are_left_out(content_with):
    html = render_html(content_with(leaderboard=None, training_curve=()))
    page = Page(html)
    assert not {"search", "training"} & set(page.ids)
    assert not {"#search", "#training"} & set(page.links)
    assert {"accuracy", "pictures", "cost", "provenance"} <= set(page.ids)


def test_trials_stand_best_first(html):
    rows = re.findall(r'<tr[^>]*><th scope="row" class="number" data-sort="(\d+)">', html)
    assert rows == ["2", "0", "3", "1"]
    assert html.count('class="winner"') == 1


def test_many_classes_show_both_ends_on_the_first_page(content_with, annotation, detected):
    from ssd_dist.evaluation.voc_ap import evaluate_voc

    names = [f"class {i}" for i in range(20)]
    annotations = [annotation("one", [[i, 0, i + 1, 1] for i in range(20)], range(1, 21))]
    found = [detected("one", [[i, 0, i + 1, 1] for i in range(8)], range(1, 9), [0.5] * 8)]
    html = render_html(
        content_with(
            class_names=names,
            annotations=annotations,
            detections=found,
            result=evaluate_voc(annotations, found, names),
        )
    )
    answer = html[html.index("<header") : html.index("<nav")]
    assert [f"class {i}" in answer for i in range(20)] == [True] * 6 + [False] * 8 + [True] * 6


def test_plots_take_their_colours_from_the_page_and_are_well_formed(html):
    plots = re.findall(r'<svg class="plot".*?</svg>', html, flags=re.DOTALL)
    # Two classes that occur, three hyperparameters, the trials, three of the training.
    assert len(plots) == 9
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

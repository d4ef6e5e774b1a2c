"""What the page says of a search."""

import re

import pytest
from report_pages import section, words

from ssd_dist.report.render import render_html


@pytest.fixture(scope="module")
def html(content):
    return render_html(content)


def test_the_search_says_what_it_learned(html):
    text = words(section(html, "search"))
    assert "Much came from the rate. Little came from the rest." in text
    shares = re.findall(
        r'<tr><th scope="row">([^<]+)</th>\s*<td class="bar">.*?<td class="number">([^<]+)</td>',
        section(html, "search").replace("\n", " "),
    )
    assert shares == [
        ("learning rate", "70\u202f%"),
        ("α", "10\u202f%"),
        ("λ", "5.0\u202f%"),
        ("α with learning rate", "12\u202f%"),
        ("λ with learning rate", "3.0\u202f%"),
    ]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (("optimizer.momentum", "lr"), "the learning rate and optimizer.momentum"),
        (("model.backbone",), "model.backbone"),
        ((), "this checkpoint"),
    ],
)
def test_the_first_page_names_what_was_searched(content_with, trial, fields, named):
    trials = [trial(i, 0.5 + i / 10, parameters=dict.fromkeys(fields, 0.1 * i)) for i in (1, 2)]
    html = render_html(content_with(leaderboard=trials, learned=None, training_curve=()))
    answer = words(html[html.index("<header") : html.index("<nav")])
    assert f"A search of 2 trials chose {named} by validation mAP" in answer
    assert "λ and" not in answer


def test_only_the_marks_that_occur_are_explained(html, content_with, trial):
    def explained(page):
        text = words(section(page, "search"))
        return ["hollow" in text, "crosses" in text, "triangles" in text]

    assert explained(html) == [True, False, True]  # the failed one has no mAP, and so no mark
    calm = [trial(0, 0.7), trial(1, 0.6), trial(2, 0.65, state="running")]
    assert explained(render_html(content_with(leaderboard=calm))) == [False, True, False]


def test_a_search_of_two_objectives_has_its_front(html, content_with, trial):
    trials = [
        trial(0, 0.8, ms_per_image=9.0, pareto=True),
        trial(1, 0.7, ms_per_image=4.0, pareto=True),
        trial(2, 0.6, ms_per_image=6.0),
    ]
    page = section(render_html(content_with(leaderboard=trials)), "search")
    assert "Pareto front" in page
    assert page.count("on the front") == 2
    assert "Pareto front" not in section(html, "search")


def test_trials_stand_best_first(html):
    rows = re.findall(r'<tr[^>]*><th scope="row" class="number" data-sort="(\d+)">', html)
    assert rows == ["2", "0", "3", "1"]
    assert html.count('class="winner"') == 1

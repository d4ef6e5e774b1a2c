"""What the report says of the configurations that were trained again."""

import json
import re

import pytest
from report_pages import section, words

from ssd_dist.report.json_files import report_json
from ssd_dist.report.markdown import render_markdown
from ssd_dist.report.render import render_html


@pytest.fixture(scope="module")
def repeated(content_with, repeats_of):
    """The search's best is ahead on validation, and not on the test split."""
    repeats = repeats_of(found_on_split=(0.5, 0.6, 0.7), paper_on_split=(0.55, 0.6, 0.65))
    return content_with(repeats=repeats)


@pytest.fixture(scope="module")
def html(repeated):
    return render_html(repeated)


def answer_of(html):
    return words(html[html.index("<header") : html.index("<nav")])


def test_the_first_page_says_whether_the_best_beats_the_papers_defaults(html):
    answer = answer_of(html)
    assert "The search's best does not beat the SSD paper's defaults: validation mAP" in answer
    assert "0.750 ± 0.010 against 0.620 ± 0.020 (difference +0.130" in answer
    assert "test mAP 0.600 ± 0.100 against 0.600 ± 0.050" in answer
    chose = "A search of 4 trials chose α, λ and the learning rate"
    assert f"{chose} by the mean validation mAP of 3 seeds" in answer


def part_of(html):
    """What stands on the repeats, between its heading and the next."""
    part = section(html, "search")
    part = part[part.index('<h3 id="repeats">') :]
    return part[: part.index("<h3>")]


def test_the_table_has_mean_and_deviation_of_each(html):
    rows = re.findall(r"<tr.*?</tr>", part_of(html), flags=re.DOTALL)
    cells = [[words(cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]
    assert cells == [
        ["Configuration", "Validation mAP", "test mAP", "α", "λ", "learning rate"],
        ["trial 2", "0.750 ± 0.010", "0.600 ± 0.100", "3", "0.01", "0.01"],
        [
            "the paper's defaults",
            "0.620 ± 0.020",
            "0.600 ± 0.050",
            "1",
            "2.5\u2009×\u200910−4",
            "5\u2009×\u200910−4",
        ],
    ]
    assert "with 3 seeds that the search had not used" in words(part_of(html))
    assert html.count('class="winner"') == 2  # of the leaderboard, and of this table


def test_without_the_split_there_is_none(content_with, repeats_of):
    html = render_html(content_with(repeats=repeats_of()))
    assert "test mAP" not in part_of(html)
    assert "The search's best beats the SSD paper's defaults: validation" in answer_of(html)


def test_a_seed_that_diverged_is_told(content_with, repeats_of):
    html = render_html(content_with(repeats=repeats_of(found=(0.9, None, 0.9))))
    assert "trial 2 1 diverged" in words(part_of(html))
    assert "0.600 ± 0.520" in words(part_of(html))
    assert (
        "are the SSD paper’s defaults: a search of 4 trials over α, λ and the learning rate found "
        "none" in answer_of(html)
    )


def test_json_has_every_value(repeated, brief_with):
    report = json.loads(report_json(repeated))["repeats"]
    found, paper = report["configurations"]
    assert (found["is_paper"], paper["is_paper"]) == (False, True)
    assert (found["trial"], paper["trial"]) == (2, None)
    assert found["values"] == [0.74, 0.75, 0.76]
    assert found["split_values"] == [0.5, 0.6, 0.7]
    assert found["std"] == pytest.approx(0.01)
    assert report["validation"]["difference"] == pytest.approx(0.13)
    assert report["on_split"]["low"] < 0 < report["on_split"]["high"]
    assert report["sentence"] == repeated.judgement.sentence
    assert json.loads(report_json(brief_with()))["repeats"] is None


def test_markdown_has_the_sentence_and_the_table(repeated):
    text = render_markdown(repeated)
    assert "does not beat the SSD paper's defaults" in text
    assert "| trial 2 | 0.750 ± 0.010 | 0.600 ± 0.100 | 3 | 0.01 | 0.01 |" in text
    assert "| the paper's defaults | 0.620 ± 0.020 | 0.600 ± 0.050 | 1 | 0.00025 | 0.0005 |" in text


def test_markdown_says_when_the_papers_defaults_won(brief_with, content_with, repeats_of):
    text = render_markdown(content_with(repeats=repeats_of(found=(0.1, 0.2, 0.3))))
    assert "the SSD paper's defaults, which none of 4 trials beats" in text
    assert "trained again" not in render_markdown(brief_with())

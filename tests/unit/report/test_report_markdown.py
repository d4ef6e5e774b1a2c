"""report.md: the answer and its tables, and what users write stays text."""

import re

from ssd_dist.report.markdown import render_markdown


def tables(text):
    """Each table as its rows of cells, the line below the header left out."""
    found = []
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if lines and lines[0].startswith("|"):
            rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if "---" not in line]
            found.append([[cell.strip() for cell in row] for row in rows])
    return found


def test_the_answer_and_the_tables(content):
    text = render_markdown(content)
    assert text.startswith("# ssd on made-up\n")
    low, high = content.summary.map_11pt_interval
    answer = f"**test mAP {content.voc.map_11pt:.3f}** (95 % interval {low:.3f} to {high:.3f})"
    assert f"{answer}, 3 pictures; 0.750 on the validation split" in text
    assert "4.00 ms a picture (CPU, 1 thread)" in text
    assert "α 1.5, λ 0.00025, learning rate 0.01, the best of 4 trials" in text
    classes, step, inference = tables(text)
    assert len(classes) == 1 + 3 + 1
    assert classes[3][1:] == ["0", "–", "–", "–", "–", "–"]  # does not occur
    assert classes[-1][2] == f"**{content.voc.map_11pt:.3f}**"
    assert step[1] == ["data", "10.0", "9.00", "15.0", "10\u202f%"]
    assert step[-1][:2] == ["**the whole**", "100"]
    assert inference[-1][:2] == ["**the whole**", "4.00"]
    assert all(len(row) == len(table[0]) for table in tables(text) for row in table)
    for name in ("report.html", "report.json", "detections.json", "trace.json"):
        assert f"[{name}]({name})" in text


def test_names_stay_text(content_with):
    names = ("a|b", "<b>&\n[x](y)", "nowhere_at_all")
    text = render_markdown(content_with(class_names=names, model_name="*bold* `code`"))
    assert r"# \*bold\* \`code\` on" in text
    classes = tables(text)[0]
    assert [row[0] for row in classes[1:4]] == [
        r"a\|b",
        r"\<b\>\& \[x\]\(y\)",
        r"nowhere\_at\_all",
    ]


def test_what_was_not_measured_is_left_out(content_with):
    timing = {
        "device": "cpu",
        "num_threads": 2,
        "inference_ms_per_image": {"median": 4.0, "p10": 3.5, "p90": 6.0},
    }
    text = render_markdown(content_with(timing=timing, leaderboard=None))
    assert len(tables(text)) == 1
    assert "trace.json" not in text
    assert "trials" not in text

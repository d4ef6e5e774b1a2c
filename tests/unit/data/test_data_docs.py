"""docs/data.md says of every kind of problem what the code does about it."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from ssd_dist.data.annotations import MAX_CLASS_NAME, MAX_OBJECTS
from ssd_dist.data.problems import KINDS, TREATMENTS
from ssd_dist.data.root_files import MAX_TEXT_BYTES

TEXT = (Path(__file__).parents[3] / "docs/data.md").read_text(encoding="utf-8")


def test_table_is_the_one_in_the_code():
    rows = re.findall(r"^\| (\w+) \| (.+) \| `(\w+)` \|$", TEXT, flags=re.MULTILINE)
    assert {kind: (treatment, what) for treatment, what, kind in rows} == KINDS
    order = list(TREATMENTS)
    places = [order.index(treatment) for treatment, _, _ in rows]
    assert places == sorted(places)


def test_limits_are_those_of_the_code():
    for number in (
        f"{Image.MAX_IMAGE_PIXELS:,} pixels",
        f"{MAX_OBJECTS:,} objects",
        f"{MAX_TEXT_BYTES // 2**20} MiB",
        f"more than {MAX_CLASS_NAME} characters",
    ):
        assert number in TEXT.replace("\n", " ")

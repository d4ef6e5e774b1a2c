"""The sheet of a few pictures: which ones, where the boxes are, and what marks a mistake."""

import numpy as np
import pytest
from PIL import Image

from ssd_dist.evaluation.contact_sheet import draw_contact_sheet
from ssd_dist.evaluation.voc_ap import evaluate_voc
from ssd_dist.structures import Annotation, Detections

GREY, BLUE = np.array([128, 128, 128]), np.array([0, 0x72, 0xB2])
TOP = 52
"""Where the first row of pictures begins: below two lines."""


def annotation(image_id, boxes, difficult=False) -> Annotation:
    """A picture of 400 x 300: as large as it is drawn, so that its pixels are the sheet's."""
    return Annotation(
        image_id,
        400,
        300,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.ones(len(boxes), np.int64),
        np.full(len(boxes), difficult),
    )


def detections(image_id, boxes) -> Detections:
    count = len(boxes)
    return Detections(
        image_id,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.ones(count, np.int64),
        np.full(count, 0.9, np.float32),
    )


@pytest.fixture
def draw(tmp_path):
    """Draws a sheet; its pixels, and the positions whose pictures were read."""

    def drawn(annotations, found, names=("cell",), **more):
        asked = []

        def read_image(index):
            asked.append(index)
            return np.full((30, 40, 3), GREY, np.uint8)

        path = tmp_path / "sheet.jpg"
        result = evaluate_voc(annotations, found, names)
        draw_contact_sheet(path, "title", annotations, found, result, read_image, **more)
        assert [file.name for file in tmp_path.iterdir()] == ["sheet.jpg"]
        return np.asarray(Image.open(path)).astype(int), asked

    return drawn


def near(pixels, colour, tolerance=40):
    return np.abs(pixels - colour).max(axis=-1) < tolerance


def test_ground_truth_is_dashed_and_detections_are_solid(draw):
    box = [100, 100, 300, 200]
    sheet, _ = draw([annotation("a", [box])], [detections("a", [box])])
    left, right = sheet[TOP : TOP + 300, 6:406], sheet[TOP : TOP + 300, 408:808]
    # JPEG blurs a line of two pixels with its white halo.
    dashes = near(left[99:103, 110:290], BLUE, 90).any(axis=0)
    solid = near(right[99:103, 110:290], BLUE, 90).any(axis=0)
    assert solid.all()
    assert 0.4 < dashes.mean() < 0.9
    # Found and right: nothing is shaded.
    for panel in (left, right):
        assert near(panel[120:180, 120:280], GREY, 12).all()


def test_mistakes_are_shaded_and_difficult_objects_are_none(draw):
    there, elsewhere = [20, 20, 120, 120], [200, 100, 350, 250]
    annotations = [
        annotation("missed", [there]),
        annotation("difficult", [there], difficult=True),
        annotation("found", [there]),  # or no threshold would be the best
    ]
    found = [detections("missed", [elsewhere]), detections("difficult", []),
             detections("found", [there])]  # fmt: skip
    sheet, _ = draw(annotations, found)
    first, second = sheet[TOP : TOP + 300, 6:814], sheet[TOP : TOP + 300, 814:]
    shade = GREY + (BLUE - GREY) * 0x60 / 0xFF
    assert near(first[30:110, 30:110], shade, 16).all()  # an object that nothing found
    assert near(first[120:230, 402 + 220 : 402 + 330], shade, 16).all()  # and a false detection
    assert near(second[40:100, 40:100], GREY, 12).all()


def test_pictures_are_spread_over_the_split_and_the_same_for_every_detector(draw):
    box = [10, 10, 50, 50]
    annotations = [annotation(str(i), [box]) for i in range(100)]
    _, asked = draw(annotations, [detections(str(i), [box]) for i in range(100)])
    assert asked == [0, 16, 33, 50, 66, 83]
    _, again = draw(annotations, [detections(str(i), []) for i in range(100)])
    assert again == asked
    _, asked = draw(annotations[:2], [detections(str(i), [box]) for i in range(2)])
    assert asked == [0, 1]


def test_more_classes_than_colours_are_named_at_their_boxes(draw):
    box = [100, 100, 300, 200]
    plain, _ = draw([annotation("a", [box])], [detections("a", [box])])
    names = tuple(f"class {i}" for i in range(20))
    named, _ = draw([annotation("a", [box])], [detections("a", [box])], names)
    inside = np.s_[TOP + 104 : TOP + 120, 6 + 104 : 6 + 200]
    assert near(plain[inside], GREY).all()
    assert not near(named[inside], GREY).all()

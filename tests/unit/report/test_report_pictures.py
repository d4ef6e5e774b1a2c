import base64
import io

import numpy as np
from PIL import Image

from ssd_dist.report.pictures import make_gallery


def test_mistakes_are_marked_and_counted(content):
    gallery = make_gallery(content)
    assert (gallery.num_objects, gallery.num_found, gallery.num_false) == (4, 3, 1)
    (right,), (wrong,), (empty,) = gallery.best, gallery.worst, gallery.typical
    assert (right.image_id, wrong.image_id, empty.image_id) == ("right", "wrong", "empty")

    assert (right.num_found, right.num_objects, right.num_false) == (2, 2, 0)
    assert not any(box.mistake for box in right.objects + right.detections)

    assert (wrong.num_found, wrong.num_objects, wrong.num_false) == (1, 2, 1)
    assert [box.mistake for box in wrong.objects] == [False, True, False]
    assert [box.difficult for box in wrong.objects] == [False, False, True]
    assert [box.mistake for box in wrong.detections] == [False, True, False]
    assert [box.difficult for box in wrong.detections] == [False, False, True]
    assert [box.text.split()[-1] for box in wrong.detections] == ["0.70", "0.85", "0.95"]
    missed = wrong.objects[1]
    assert (missed.x, missed.y, missed.width, missed.height) == (20, 0, 10, 10)

    assert empty.detections == ()  # its score of 0.1 lies below the threshold


def test_no_picture_is_shown_twice_and_few_are_enough(content_with, annotation, detected):
    names = ("cat",)
    for num_pictures in (1, 2, 5, 30):
        annotations = [annotation(str(i), [[0, 0, 9, 9]], [1]) for i in range(num_pictures)]
        found = [detected(str(i), [[0, 0, 9, 9]], [1], [0.5]) for i in range(0, num_pictures, 2)]
        gallery = make_gallery(
            content_with(
                class_names=names,
                annotations=annotations,
                detections=found,
                read_image=lambda index: np.zeros((30, 40, 3), np.uint8),
            ),
            num_each=4,
        )
        shown = [p.image_id for p in gallery.best + gallery.typical + gallery.worst]
        assert len(shown) == len(set(shown)) == min(num_pictures, 12, 3 * max(num_pictures // 3, 1))


def test_pictures_are_the_right_ones_and_shrunk(content_with):
    def read_image(index):
        return np.full((900, 1200, 3), 100 * index, np.uint8)

    gallery = make_gallery(content_with(read_image=read_image))
    for picture, shade in ((gallery.best[0], 0), (gallery.worst[0], 100)):
        data = base64.b64decode(picture.jpeg_uri.removeprefix("data:image/jpeg;base64,"))
        image = Image.open(io.BytesIO(data))
        assert image.size == (640, 480)
        assert abs(np.asarray(image).mean() - shade) < 2
        assert (picture.width, picture.height) == (40, 30)  # boxes are in the annotation's pixels

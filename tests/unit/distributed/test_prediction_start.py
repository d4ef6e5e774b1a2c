"""What a prediction refuses before anything is started, and what of a video is read."""

import numpy as np
import pytest

from ssd_dist.distributed import prediction_job, prediction_pictures
from ssd_dist.terminal import Terminal


@pytest.mark.parametrize(
    ("number", "flag"), [("num_workers", "--workers"), ("batch_size", "--batch-size")]
)
def test_numbers_below_one_are_refused_before_anything_is_written(number, flag, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=f"{flag} must be at least 1, not 0"):
        prediction_job.run_prediction(
            tmp_path, ["a.jpg"], out, Terminal(), score_threshold=0.3, **{number: 0}
        )
    assert not out.exists()


@pytest.mark.parametrize("was_there", [False, True])
def test_a_listing_that_is_refused_leaves_the_folder_as_it_was(was_there, tmp_path):
    out, photos = tmp_path / "out", tmp_path / "photos"
    photos.mkdir()
    (photos / "broken.mp4").write_text("no video")
    if was_there:
        out.mkdir()
    # Its frames can't be listed, or there is no PyAV.
    with (
        pytest.raises(ValueError, match="video"),
        prediction_job._opened(out, {"paths": [str(photos)]}, Terminal(), resume=False),
    ):
        pass
    assert out.exists() == was_there
    assert not was_there or list(out.iterdir()) == []


def test_frames_before_the_place_where_a_video_breaks_are_kept(monkeypatch):
    def frames(path, times):
        yield times[0], np.zeros((4, 6, 3), np.uint8)
        yield times[1], np.ones((4, 6, 3), np.uint8)
        raise ValueError("broken here")

    monkeypatch.setattr(prediction_pictures, "read_frames", frames)
    batch = {"path": np.array(["clip.mp4"] * 4), "time": np.array([0, 5, 10, 15])}
    found = list(prediction_pictures._pictures(batch))
    assert [row for row, one in found if isinstance(one, np.ndarray)] == [0, 1]
    assert dict(found[2:]) == {2: "broken here", 3: "broken here"}

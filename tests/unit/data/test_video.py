"""Frames of a video: each once, found again from the middle, upright."""

import numpy as np
import pytest

from ssd_dist.data.video import frame_times, is_video, read_frames

av = pytest.importorskip("av", reason="the extra `video` is not installed")
NUM_FRAMES = 24


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Frames that get brighter, with a key frame every 8 and frames that refer to later ones."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.bit_rate = 4_000_000
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 8, 2
        for i in range(NUM_FRAMES):
            pixels = np.full((48, 64, 3), 10 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_every_frame_has_a_time_of_its_own(clip):
    in_file = list(frame_times(clip))
    times = sorted(in_file)
    assert len(set(times)) == NUM_FRAMES
    assert in_file != times  # the file's order is that of decoding
    found = dict(read_frames(clip, times))
    assert list(found) == times
    for i, pixels in enumerate(found.values()):
        assert pixels.shape == (48, 64, 3)
        assert abs(float(pixels.mean()) - 10 * i) < 4


@pytest.mark.parametrize("wanted", [[13], [5, 6, 17], [23]])
def test_frames_from_the_middle_are_the_same(clip, wanted):
    times = sorted(frame_times(clip))
    whole = dict(read_frames(clip, times))
    part = dict(read_frames(clip, [times[i] for i in wanted]))
    assert list(part) == [times[i] for i in wanted]
    assert all(np.array_equal(pixels, whole[at]) for at, pixels in part.items())


def test_a_time_between_frames_has_none(clip):
    times = sorted(frame_times(clip))
    assert list(read_frames(clip, [times[3] + 1])) == []


def test_what_is_no_video_is_refused_by_name(tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("no video")
    for ask in (lambda: list(frame_times(path)), lambda: list(read_frames(path, [0]))):
        with pytest.raises(ValueError, match=r"notes\.mp4: not readable as a video"):
            ask()
    with pytest.raises(FileNotFoundError, match=r"absent\.mp4"):
        list(frame_times(tmp_path / "absent.mp4"))


def test_videos_are_known_by_their_suffix():
    assert is_video("a/B.MP4")
    assert not is_video("a/mp4.jpg")


def test_a_frame_that_was_cut_off_is_left_out(tmp_path):
    path = tmp_path / "clip.avi"
    noise = np.random.default_rng(0).integers(0, 255, (4, 48, 64, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size = 1
        for pixels in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        third = list(container.demux(video=0))[2]
    path.write_bytes(path.read_bytes()[: third.pos + third.size // 2])
    times = list(frame_times(path))
    assert len(times) == 3
    assert [at for at, _ in read_frames(path, times)] == times[:2]

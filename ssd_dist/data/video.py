"""Frames of a video, one after the other: PyAV's decoders, which the extra `video` installs.

A frame is known by its time, in the units of its stream: numbering frames would mean to decode a
video from its start whenever one is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ssd_dist.data.problems import DataError, Problem

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv")


def is_video(path: str | Path) -> bool:
    """Whether a file is taken for a video: by its suffix."""
    return str(path).lower().endswith(VIDEO_SUFFIXES)


def frame_times(path: Path) -> Iterator[int]:
    """The time of every frame of a video's first picture stream, in the order of the file.

    Nothing is decoded where the file itself tells the times. Raises DataError (a ValueError),
    naming the file, if it is no video, or its frames have no times; OSError if it can't be opened;
    ValueError if PyAV is not installed.
    """
    av = _av()
    path.open("rb").close()
    try:
        with av.open(str(path)) as container:
            stream = _stream(container, path)
            packets = [
                packet.pts
                for packet in container.demux(stream)
                if packet.size and not packet.is_discard
            ]
        if None not in packets:
            yield from packets
            return
        with av.open(str(path)) as container:
            for frame in container.decode(_stream(container, path)):
                if frame.pts is None:
                    raise _refused(path, "its frames have no times; convert it, say to .mp4")
                yield frame.pts
    except av.FFmpegError as error:
        raise _refused(path, f"not readable as a video: {error.strerror}") from None


def read_frames(path: Path, times: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Frames of a video as (time, (H, W, 3) uint8, RGB, upright), decoded from the last key frame
    before the first of them to the last of them.

    Args:
        path: the video.
        times: of the frames that are wanted, increasing.

    Frames that can't be decoded, or only in part because the file was cut off there, are left out.
    Raises as `frame_times` does, also after frames that it has given.
    """
    av = _av()
    wanted = set(times)
    try:
        with av.open(str(path)) as container:
            stream = _stream(container, path)
            _seek_before(container, stream, times[0])
            for frame in container.decode(stream):
                if frame.pts in wanted and not frame.is_corrupt:
                    pixels = frame.to_ndarray(format="rgb24")
                    yield frame.pts, np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90))
                if frame.pts is not None and frame.pts >= times[-1]:
                    return
    except av.FFmpegError as error:
        raise _refused(path, f"not readable as a video: {error.strerror}") from None


def _av() -> ModuleType:
    try:
        import av
    except ImportError:
        raise ValueError(
            "videos need PyAV: pip install 'ssd-dist[video]', or leave the videos out"
        ) from None
    av.logging.set_level(av.logging.PANIC)
    return av


def _stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise _refused(path, "holds no pictures that move")
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1  # the caller's core, not those of others
    return stream


def _seek_before(container: Any, stream: Any, time: int) -> None:
    """Goes to a key frame that is shown at `time` or earlier.

    A container looks for the last one that is stored before it; that one may be shown after frames
    that are stored behind it, and what these refer to would be missing.
    """
    start, back = stream.start_time or 0, 0
    second = max(1, int(1 / stream.time_base))
    while True:
        target = max(start, time - back)
        container.seek(target, stream=stream, backward=True)
        packet = next(container.demux(stream))
        if target == start or (packet.pts is not None and packet.pts <= time):
            break
        back = 2 * back or second
    container.seek(target, stream=stream, backward=True)


def _refused(path: Path, message: str) -> DataError:
    return DataError(Problem("unreadable_picture", str(path), message))

"""Parts of video files, joined and cut without encoding anything again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import av
import av.error
import numpy as np

from pp_recorder.dataset.paths import media_url
from pp_recorder.dataset.video import MUXER_OPTIONS, TIME_TOLERANCE

_BYTES_PER_FRAME = 16  # at most, in the index of an mp4 file
_LEAST_TIMESCALE = 10_000  # of FFmpeg, which doubles the rate until it is reached


class RemuxError(ValueError):
    """A video file does not hold what is wanted of it, or cannot be read."""


@dataclass(frozen=True)
class Clip:
    """Consecutive images in a video file.

    Attributes:
        path: The file.
        begin: Number of the first image in it.
        length: Number of images.
    """

    path: Path
    begin: int
    length: int

    @property
    def end(self) -> int:
        """Number of the image behind the last one."""
        return self.begin + self.length


@dataclass(frozen=True)
class VideoIndex:
    """What a video file holds.

    Attributes:
        codec: The codec's name and its configuration; clips that share a file must agree in it.
        frames: Number of each image, from its time, in the order of the file.
        sizes: Encoded size of each, in bytes.
    """

    codec: tuple[str, bytes]
    frames: np.ndarray
    sizes: np.ndarray

    def count(self, begin: int, length: int) -> int:
        """Return how many images there are from number `begin` on, of at most `length`."""
        return int(self._within(begin, length).sum())

    def size(self, begin: int, length: int) -> int:
        """Return the bytes that these images take in a file."""
        return int(self.sizes[self._within(begin, length)].sum()) + length * _BYTES_PER_FRAME

    def _within(self, begin: int, length: int) -> np.ndarray:
        return (self.frames >= begin) & (self.frames < begin + length)


def read_index(path: Path, fps: int) -> VideoIndex:
    """Return what a video file holds, as far as it can be read.

    Raises:
        RemuxError: It cannot be opened.
    """
    try:
        with av.open(media_url(path)) as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            codec = context.name, bytes(context.extradata or b"")
            rate = _rate(stream, fps)
            numbers, sizes = _read_packets(container, stream, rate)
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise RemuxError(f"{path} cannot be opened: {error}") from error
    return VideoIndex(codec, numbers, sizes)


def _read_packets(container, stream, rate: "_Rate") -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each image and its size, as far as the file goes.

    The table of an mp4 file has them in a third of the time. It says when images are decoded, not
    when they are shown; but if both begin at 0 and images are decoded without gaps, then both are
    the same, for none is shown before it is decoded.
    """
    times, sizes = [], []
    table = _read_table(container, stream, rate)
    try:
        for packet in container.demux(stream):
            if table is not None and packet.pts == packet.dts == 0:
                return np.arange(len(table)), table
            table = None
            if packet.pts is not None:
                times.append(packet.pts)
                sizes.append(packet.size)
    except av.error.FFmpegError:  # cut short; what is before is there
        pass
    return _frames(np.array(times, np.int64), rate), np.array(sizes, np.int64)


def _read_table(container, stream, rate: "_Rate") -> np.ndarray | None:
    """Return the sizes of images that are decoded one after the other, from time 0 on.

    None if they are not, or if the file does not end with the last of them: then it is cut short,
    or has another table behind it.
    """
    entries = getattr(stream, "index_entries", ())  # from PyAV 17 on
    if not len(entries):
        return None
    table = np.array([(entry.timestamp, entry.size, entry.pos) for entry in entries], np.int64)
    times, sizes, positions = table.T
    late = np.abs(_exact(times, rate) - np.arange(len(times))) > TIME_TOLERANCE * rate.fps
    if late.any() or (positions + sizes).max() != container.size:
        return None
    return sizes


def remux(clips: Sequence[Clip], target: Path, fps: int) -> None:
    """Write clips, one after the other, to a new mp4 file, which depends on their images alone.

    Args:
        clips: In order; each begins with a key frame.
        target: The file.
        fps: Frames per second, of the clips and of the file.

    Raises:
        RemuxError: A clip lacks an image, or does not begin with a key frame.
    """
    options = {**MUXER_OPTIONS, "video_track_timescale": str(_timescale(fps))}
    frame_time = Fraction(1, fps)
    with av.open(media_url(target), "w", format="mp4", options=options) as output:
        stream, done = None, 0
        for clip in _join_neighbours(clips):
            try:
                with av.open(media_url(clip.path)) as container:
                    source = container.streams.video[0]
                    if stream is None:
                        stream = output.add_stream_from_template(source, opaque=True)
                    for packet, pts, dts in _packets(container, source, clip, fps):
                        packet.pts, packet.dts = pts + done, dts + done
                        packet.duration, packet.time_base = 1, frame_time
                        packet.stream = stream
                        output.mux(packet)
            except (av.error.FFmpegError, IndexError) as error:
                raise RemuxError(f"{clip.path} cannot be read: {error}") from error
            done += clip.length


def _packets(container, source, clip: Clip, fps: int) -> Iterator[tuple[av.Packet, int, int]]:
    """Yield the packets of a clip, with the numbers in it of what they show and of their turn."""
    if clip.begin:
        container.seek(round(clip.begin / fps / source.time_base), stream=source)
    found, rate = 0, _rate(source, fps)
    for packet in container.demux(source):
        if packet.dts is None or packet.pts is None:
            continue
        pts = _frame(packet.pts, rate) - clip.begin
        dts = pts if packet.dts == packet.pts else _frame(packet.dts, rate) - clip.begin
        if dts >= clip.length:
            break
        if not 0 <= pts < clip.length:
            continue
        if not found and not (packet.is_keyframe and pts == 0):
            raise RemuxError(
                f"{clip.path} must have a key frame at {clip.begin / fps:.4f} s to be cut there "
                "without encoding it again"
            )
        found += 1
        yield packet, pts, dts
    if found != clip.length:
        raise RemuxError(
            f"{clip.path} has {found} images from {clip.begin / fps:.4f} s on, expected "
            f"{clip.length}"
        )


class _Rate(NamedTuple):
    """Frames per tick of a stream, as a fraction, for `fps` frames per second."""

    frames: int
    ticks: int
    fps: int


def _rate(stream, fps: int) -> _Rate:
    unit = stream.time_base  # av makes it anew each time
    return _Rate(unit.numerator * fps, unit.denominator, fps)


def _frame(ticks: int, rate: _Rate) -> int:
    """Return the number of the image at a time.

    Raises:
        RemuxError: There can be none.
    """
    exact = ticks * rate.frames / rate.ticks  # a `Fraction` takes ten times as long
    number = round(exact)
    if abs(exact - number) > TIME_TOLERANCE * rate.fps:
        raise _no_time(exact, rate)
    return number


def _frames(ticks: np.ndarray, rate: _Rate) -> np.ndarray:
    """Return the numbers of the images at times; see `_frame`."""
    exact = _exact(ticks, rate)
    numbers = np.rint(exact)
    wrong = np.abs(exact - numbers) > TIME_TOLERANCE * rate.fps
    if wrong.any():
        raise _no_time(exact[wrong.argmax()], rate)
    return numbers.astype(np.int64)


def _exact(ticks: np.ndarray, rate: _Rate) -> np.ndarray:
    return ticks * (rate.frames / rate.ticks)


def _no_time(exact: float, rate: _Rate) -> RemuxError:
    return RemuxError(
        f"an image is at {exact / rate.fps:.4f} s, which is no time of {rate.fps} frames per second"
    )


def _join_neighbours(clips: Sequence[Clip]) -> list[Clip]:
    """Join clips that follow each other in one file."""
    joined = list(clips[:1])
    for before, clip in pairwise(clips):
        if before.path == clip.path and before.end == clip.begin:
            joined[-1] = replace(joined[-1], length=joined[-1].length + clip.length)
        else:
            joined.append(clip)
    return joined


def _timescale(fps: int) -> int:
    """Return the ticks per second of an mp4 file, of which a frame is a whole number."""
    scale = fps
    while scale < _LEAST_TIMESCALE:
        scale *= 2
    return scale

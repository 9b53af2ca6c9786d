"""A video encoder in a background thread, which blocks its caller rather than drop frames."""

import queue
import threading
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import VideoReformatter

from pp_recorder.dataset.paths import media_url
from pp_recorder.dataset.stats import ImageStats, Stats
from pp_recorder.output import is_disk_full

_QUEUE_FRAMES = 4  # enough to even out delays; each one is an image in memory
TIME_TOLERANCE = 1e-4  # s, what LeRobot's reader allows


@dataclass(frozen=True)
class Codec:
    """Settings of a video encoder.

    Every second frame is a key frame, so that training code reaches any frame quickly; there are
    no B-frames, so that presentation starts at exactly 0; and each encoder has one thread, so that
    its output does not depend on the number of cores. Nor may it depend on what else is running:
    x264's macroblock tree, which "ultrafast" leaves out, made up to one video in a hundred
    come out differently on a busy machine; without it none of 1,600 did.

    Attributes:
        name: For `info.json`.
        encoder: FFmpeg's name.
        options: FFmpeg's options.
    """

    name: str
    encoder: str
    options: dict[str, str]

    @property
    def settings(self) -> dict[str, int | str]:
        """Return the options that LeRobot reads from `info.json` to encode parts again alike."""
        values = {key: self.options[key] for key in ("g", "crf", "preset")}
        return {key: int(v) if v.isdigit() else v for key, v in values.items()}


CODECS = {
    "h264": Codec(
        "h264", "libx264",
        # docs/decisions/010: the quality of "veryfast" with crf 23 in half the time
        {"preset": "ultrafast", "coder": "cabac", "aq-mode": "1", "crf": "26", "g": "2",
         "bf": "0", "sc_threshold": "0", "threads": "1"},
    ),
    "av1": Codec(
        "av1", "libsvtav1",
        {"preset": "12", "crf": "30", "g": "2", "svtav1-params": "lp=1:scd=0"},
    ),
}  # fmt: skip

PIXEL_FORMAT = "yuv420p"
# For `reformat`: PyAV takes a thread per processor from version 17 on, which small images wait for.
ONE_THREAD = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}
# The index comes first, so that a video plays before all of it is there. Bit rates, which differ
# between a file and a part of it, are left out, so that cutting a joined one gives the same bytes.
MUXER_OPTIONS = {"movflags": "faststart", "write_btrt": "0"}


class PlanarImage(NamedTuple):
    """An image that needs no conversion any more, which takes a third of what encoding does.

    Attributes:
        planes: (H * 3 / 2, W) uint8 in `PIXEL_FORMAT`, BT.601 with limited range: Y, then U and V
            at half the resolution, one after the other.
        sample: (h, w, 3) uint8, RGB: what statistics are made of (`ImageStats.sample`).
    """

    planes: np.ndarray
    sample: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the image."""
        rows, width = self.planes.shape
        return rows * 2 // 3, width, 3

    @property
    def dtype(self) -> np.dtype:
        """The type of its numbers."""
        return self.planes.dtype


class VideoEncoder:
    """The writer of one mp4 file.

    Args:
        path: The file; its folder exists.
        codec: A name in `CODECS`.
        fps: Frames per second.
    """

    def __init__(self, path: Path, codec: str, fps: int) -> None:
        self.path = path
        self._codec = CODECS[codec]
        self._fps = fps
        self._stats = ImageStats()
        self._frames: queue.Queue[np.ndarray | PlanarImage | None] = queue.Queue(_QUEUE_FRAMES)
        self._error: BaseException | None = None
        self._cancelled = False
        self._count = 0
        self._image_count = 0
        self._thread = threading.Thread(target=self._run, name=f"encode {path.name}", daemon=True)
        self._thread.start()

    def add(self, image: np.ndarray | PlanarImage) -> None:
        """Queue an image (H, W, 3) uint8, waiting for room; the caller must not change it later.

        Raises:
            RuntimeError: The encoder failed.
            OSError: The disk is full.
        """
        self._put(image)

    def finish(self, expected: int) -> Stats:
        """Complete and check the file, and return the statistics of its images.

        Args:
            expected: The number of images that it must hold.

        Raises:
            RuntimeError: The encoder failed, or the file does not hold exactly that many images,
                one per control period.
        """
        self._put(None)
        self._thread.join()
        self._raise_error()
        if self._image_count != expected:
            raise RuntimeError(
                f"{self.path.name} holds {self._image_count} pictures at their times, expected "
                f"{expected}"
            )
        return self._stats.result()

    def cancel(self) -> None:
        """Stop, whatever is still queued, and delete the file."""
        self._cancelled = True
        while self._thread.is_alive():
            try:
                self._frames.put(None, timeout=0.05)
            except queue.Full:
                continue
            self._thread.join()
        self.path.unlink(missing_ok=True)

    def _put(self, item: np.ndarray | PlanarImage | None) -> None:
        while True:
            self._raise_error()
            try:
                self._frames.put(item, timeout=0.5)
                return
            except queue.Full:
                continue  # the encoder is slower than the caller, or it has just failed

    def _raise_error(self) -> None:
        if isinstance(self._error, OSError) and is_disk_full(self._error):
            what = f"encoding {self.path.name} failed: {self._error.strerror}"
            raise OSError(self._error.errno, what) from self._error
        if self._error is not None:
            raise RuntimeError(f"encoding {self.path.name} failed: {self._error}") from self._error

    def _run(self) -> None:
        try:
            self._encode()
            if not self._cancelled:
                self._image_count = count_images(self.path, self._fps)
        except BaseException as error:  # raised again in the caller's thread
            self._error = error

    def _encode(self) -> None:
        with av.open(media_url(self.path), "w", options=MUXER_OPTIONS) as container:
            stream, converter = None, VideoReformatter()  # one for all: making it costs most
            while (image := self._frames.get()) is not None and not self._cancelled:
                if stream is None:
                    stream = self._add_stream(container, image.shape)
                if isinstance(image, PlanarImage):
                    plain = av.VideoFrame.from_numpy_buffer(image.planes, format=PIXEL_FORMAT)
                    sample = image.sample
                else:
                    frame = av.VideoFrame.from_numpy_buffer(image, format="rgb24")
                    plain = converter.reformat(frame, format=PIXEL_FORMAT, **ONE_THREAD)
                    sample = ImageStats.sample(image)
                plain.pts, plain.time_base = self._count, Fraction(1, self._fps)
                container.mux(stream.encode(plain))
                self._stats.add_sample(sample)
                self._count += 1
            if stream is not None:
                container.mux(stream.encode(None))

    def _add_stream(self, container, shape: tuple[int, ...]):
        stream = container.add_stream(
            self._codec.encoder, rate=self._fps, options=self._codec.options
        )
        stream.height, stream.width = shape[:2]
        stream.pix_fmt = PIXEL_FORMAT
        stream.time_base = Fraction(1, self._fps)
        return stream


def count_images(path: Path, fps: int) -> int:
    """Return the number of images in a video, from the first on, each at its time.

    Check the time of every packet, and decode the last images only: a video encoded a moment ago
    can be cut short, but not wrong in the middle. `pp-inspect` decodes everything.

    Returns:
        The number, or 0 if the end cannot be decoded.
    """
    with av.open(media_url(path)) as container:
        stream = container.streams.video[0]
        unit = float(stream.time_base or 0)
        times = sorted(
            packet.pts * unit for packet in container.demux(stream) if packet.pts is not None
        )
        late = np.abs(np.array(times) - np.arange(len(times)) / fps) > TIME_TOLERANCE
        if not times or late.any():
            return int(late.argmax()) if times else 0
        container.seek(round(times[-1] / unit), stream=stream)
        decoded = [frame.time for frame in container.decode(stream)]
    reached_end = bool(decoded) and abs((decoded[-1] or 0.0) - times[-1]) <= TIME_TOLERANCE
    return len(times) if reached_end else 0


class JpegEncoder:
    """An encoder of images, all of one size, into JPEG files; it keeps its codec for speed.

    Args:
        coarsest_quantizer: The lowest quality allowed, from 3 (best) to 31 (worst).
    """

    _FINEST_QUANTIZER = 3
    _CLOCK = Fraction(1, 90000)  # s

    def __init__(self, coarsest_quantizer: int = 5) -> None:
        self._coarsest_quantizer = coarsest_quantizer
        self._reformat = VideoReformatter().reformat
        self._codec: VideoCodecContext | None = None

    def encode(self, image: np.ndarray) -> bytes:
        """Return the JPEG file of an image; its sides are cut to even numbers of pixels.

        Args:
            image: (H, W, 3) uint8, RGB.
        """
        height, width = (side // 2 * 2 for side in image.shape[:2])
        if self._codec is None:
            self._codec = self._make_codec(height, width)
        even = np.ascontiguousarray(image[:height, :width])
        whole = av.VideoFrame.from_ndarray(even, format="rgb24")
        frame = self._reformat(whole, format="yuvj420p", **ONE_THREAD)
        return b"".join(bytes(packet) for packet in self._codec.encode(frame))

    def _make_codec(self, height: int, width: int) -> VideoCodecContext:
        codec = av.CodecContext.create("mjpeg", "w")
        assert isinstance(codec, VideoCodecContext)
        codec.height, codec.width = height, width
        codec.pix_fmt, codec.time_base = "yuvj420p", self._CLOCK
        codec.qmin, codec.qmax = self._FINEST_QUANTIZER, self._coarsest_quantizer
        return codec


def encode_jpeg(image: np.ndarray, coarsest_quantizer: int = 5) -> bytes:
    """Return the JPEG file of one image; its sides are cut to even numbers of pixels.

    Args:
        image: (H, W, 3) uint8, RGB.
        coarsest_quantizer: The lowest quality allowed, from 3 (best) to 31 (worst).
    """
    return JpegEncoder(coarsest_quantizer).encode(image)

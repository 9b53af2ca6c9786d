"""Pictures as VP8 packets and as JPEGs."""

import time
from fractions import Fraction

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

_CLOCK = Fraction(1, 90000)  # what RTP counts in
_BITS_PER_SECOND = 1_500_000
_VP8 = {"deadline": "realtime", "cpu-used": "-6", "lag-in-frames": "0", "error-resilient": "1"}


class Encoder:
    """Compresses the pictures of one camera, (H, W, 3) uint8, all of one size."""

    def __init__(self) -> None:
        self._convert = VideoReformatter().reformat
        self._began = time.monotonic()
        self._vp8: VideoCodecContext | None = None
        self._mjpeg: VideoCodecContext | None = None

    def video(self, picture: np.ndarray, whole: bool) -> list[av.Packet]:
        """VP8 of a picture; `whole` makes one that stands alone."""
        if self._vp8 is None:
            self._vp8 = _codec("libvpx", "yuv420p", picture, _VP8)
            self._vp8.bit_rate = _BITS_PER_SECOND
            self._vp8.gop_size = 60  # how long a viewer who has lost a packet may have to wait
            self._vp8.thread_count = 1
        frame = self._frame(picture, "yuv420p")
        if whole:
            frame.pict_type = PictureType.I
        return list(self._vp8.encode(frame))

    def jpeg(self, picture: np.ndarray) -> bytes:
        """A JPEG of a picture."""
        if self._mjpeg is None:
            self._mjpeg = _codec("mjpeg", "yuvj420p", picture, {"qmin": "3", "qmax": "6"})
        return b"".join(bytes(p) for p in self._mjpeg.encode(self._frame(picture, "yuvj420p")))

    def _frame(self, picture: np.ndarray, pixel_format: str) -> av.VideoFrame:
        frame = self._convert(av.VideoFrame.from_ndarray(picture), format=pixel_format)
        frame.time_base = _CLOCK
        frame.pts = round((time.monotonic() - self._began) / _CLOCK)
        return frame


def _codec(
    name: str, pixel_format: str, picture: np.ndarray, options: dict[str, str]
) -> VideoCodecContext:
    codec = av.CodecContext.create(name, "w")
    assert isinstance(codec, VideoCodecContext)
    codec.height, codec.width = picture.shape[:2]
    codec.pix_fmt, codec.time_base = pixel_format, _CLOCK
    codec.options = options
    return codec

"""A video encoder for live views."""

import time
from fractions import Fraction

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from pp_recorder.dataset.video import ONE_THREAD, PIXEL_FORMAT

_CLOCK = Fraction(1, 90000)  # s, RTP's unit of time
_BITS_PER_SECOND = 1_500_000
_KEY_FRAME_INTERVAL = 60  # frames; a viewer who lost a packet may have to wait for that many
_VP8 = {"deadline": "realtime", "cpu-used": "-6", "lag-in-frames": "0", "error-resilient": "1"}


class Vp8Encoder:
    """A real-time encoder of one camera's images, all of one size."""

    def __init__(self) -> None:
        self._reformat = VideoReformatter().reformat
        self._start_time = time.monotonic()
        self._codec: VideoCodecContext | None = None

    def encode(self, image: np.ndarray, key_frame: bool) -> list[av.Packet]:
        """Encode an image.

        Args:
            image: (H, W, 3) uint8.
            key_frame: Whether it must be decodable without the images before it.
        """
        if self._codec is None:
            self._codec = _make_codec(image)
        frame = self._reformat(av.VideoFrame.from_ndarray(image), format=PIXEL_FORMAT, **ONE_THREAD)
        frame.time_base = _CLOCK
        frame.pts = round((time.monotonic() - self._start_time) / _CLOCK)
        if key_frame:
            frame.pict_type = PictureType.I
        return list(self._codec.encode(frame))


def _make_codec(image: np.ndarray) -> VideoCodecContext:
    codec = av.CodecContext.create("libvpx", "w")
    assert isinstance(codec, VideoCodecContext)
    codec.height, codec.width = image.shape[:2]
    codec.pix_fmt, codec.time_base = "yuv420p", _CLOCK
    codec.options = _VP8
    codec.bit_rate = _BITS_PER_SECOND
    codec.gop_size = _KEY_FRAME_INTERVAL
    codec.thread_count = 1
    return codec

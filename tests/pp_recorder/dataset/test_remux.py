"""What a video file holds is the same from its table and from its packets."""

from fractions import Fraction

import av
import numpy as np
import pytest

from pp_recorder.dataset import remux
from pp_recorder.dataset.remux import RemuxError, read_index

IN_FRONT = {"movflags": "faststart"}
REORDERED = {"bf": "2", "b_adapt": "0", "g": "20"}


def write(path, encoder="libx264", options=None, muxer=None, fps=30, count=20):
    with av.open(str(path), "w", options=IN_FRONT if muxer is None else muxer) as container:
        stream = container.add_stream(encoder, rate=fps, options=options or {"bf": "0", "g": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for k in range(count):
            image = np.full((64, 64, 3), 10 * k, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def both(path, monkeypatch, fps=30):
    """Return the index as it is read, and as the packets alone give it."""
    read = read_index(path, fps)
    with monkeypatch.context() as patch:
        patch.setattr(remux, "_read_table", lambda *_: None)
        return read, read_index(path, fps)


@pytest.fixture
def demuxed(monkeypatch):
    """Return the list of the times of the packets that had to be read."""
    found = []
    real = remux._frames
    monkeypatch.setattr(
        remux, "_frames", lambda ticks, rate: found.extend(ticks) or real(ticks, rate)
    )
    return found


@pytest.mark.parametrize(
    ("encoder", "options", "muxer", "fps"),
    [
        ("libx264", None, None, 30),
        ("libx264", None, None, 7),
        ("libx264", None, {}, 30),
        ("libx264", None, {"movflags": "frag_keyframe"}, 30),
        ("libx264", None, {"movflags": "frag_keyframe+empty_moov"}, 30),
        ("libx264", REORDERED, None, 30),
        ("libx264", REORDERED, {**IN_FRONT, "use_editlist": "0"}, 30),
        ("libx264", REORDERED, {"movflags": "faststart+negative_cts_offsets"}, 30),
        ("libsvtav1", {"preset": "12", "g": "2"}, None, 30),
        ("libsvtav1", {"preset": "12"}, None, 30),
    ],
)
def test_the_index_is_that_of_the_packets(tmp_path, monkeypatch, encoder, options, muxer, fps):
    path = write(tmp_path / "video.mp4", encoder, options, muxer, fps)
    read, expected = both(path, monkeypatch, fps)
    assert read.codec == expected.codec
    np.testing.assert_array_equal(read.frames, expected.frames)
    np.testing.assert_array_equal(read.sizes, expected.sizes)
    assert len(read.sizes) == 20


def test_images_in_another_order_than_decoded_are_told_by_their_packets(tmp_path, monkeypatch):
    path = write(tmp_path / "video.mp4", options=REORDERED)
    read, _ = both(path, monkeypatch)
    assert list(read.frames) != sorted(read.frames), "no image is out of order: this shows nothing"


def test_a_file_that_was_cut_short_has_what_is_left(tmp_path, monkeypatch):
    path = write(tmp_path / "video.mp4")
    whole = read_index(path, 30)
    path.write_bytes(path.read_bytes()[: -int(whole.sizes[-5:].sum())])
    read, expected = both(path, monkeypatch)
    assert list(read.frames) == list(expected.frames) == list(range(15))


@pytest.mark.skipif(int(av.__version__.split(".")[0]) < 17, reason="needs the table, of PyAV 17")
def test_our_files_are_not_read_whole(tmp_path, demuxed):
    assert len(read_index(write(tmp_path / "video.mp4"), 30).frames) == 20
    assert not demuxed
    read_index(write(tmp_path / "reordered.mp4", options=REORDERED), 30)
    assert len(demuxed) == 20


def test_a_time_between_images_is_refused(tmp_path):
    path = write(tmp_path / "video.mp4", fps=30)
    with pytest.raises(RemuxError, match=r"is no time of 25 frames per second"):
        read_index(path, 25)

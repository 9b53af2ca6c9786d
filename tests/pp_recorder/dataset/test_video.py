import errno

import av
import numpy as np
import pytest

from pp_recorder.dataset.video import CODECS, JpegEncoder, PlanarImage, VideoEncoder, encode_jpeg


def moving_square(count, size=64):
    images = np.full((count, size, size, 3), 90, dtype=np.uint8)
    for i, image in enumerate(images):
        image[10:30, i % 40 : i % 40 + 20] = (200, 60, 30)
    return images


def encode(path, images, codec="h264"):
    encoder = VideoEncoder(path, codec, 30)
    for image in images:
        encoder.add(image)
    return encoder.finish(len(images))


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_every_frame_comes_back_at_its_time(tmp_path, codec):
    images = moving_square(45)
    stats = encode(tmp_path / "v.mp4", images, codec)
    assert stats["count"] == [45]
    with av.open(str(tmp_path / "v.mp4")) as container:
        frames = list(container.decode(video=0))
    assert [round(float(f.pts * f.time_base) * 30, 6) for f in frames] == list(range(45))
    decoded = np.stack([f.to_ndarray(format="rgb24") for f in frames]).astype(int)
    assert np.abs(decoded - images).mean() < 6


def test_every_second_frame_is_a_key_frame(tmp_path):
    encode(tmp_path / "v.mp4", moving_square(10))
    with av.open(str(tmp_path / "v.mp4")) as container:
        keys = [bool(p.is_keyframe) for p in container.demux(video=0) if p.dts is not None]
    assert keys == [True, False] * 5


def test_equal_frames_give_equal_files(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        encode(tmp_path / name, moving_square(20))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_an_image_that_needs_no_conversion_gives_the_same_file_and_statistics(tmp_path):
    images = moving_square(20)[:, :48]
    planar = [
        PlanarImage(
            av.VideoFrame.from_ndarray(image).reformat(format="yuv420p").to_ndarray(),
            image[2::4, 2::4],
        )
        for image in images
    ]
    assert planar[0].shape == images[0].shape
    stats = [encode(tmp_path / name, each) for name, each in (("a.mp4", images), ("b.mp4", planar))]
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    for name, values in stats[0].items():
        np.testing.assert_array_equal(stats[1][name], values)


def test_a_failing_encoder_is_reported_to_its_caller(tmp_path):
    encoder = VideoEncoder(tmp_path / "v.mp4", "h264", 30)
    encoder.add(np.zeros((33, 33, 3), dtype=np.uint8))  # yuv420p needs even sizes
    with pytest.raises(RuntimeError, match=r"encoding v.mp4 failed"):
        encoder.finish(1)


def test_a_missing_folder_is_reported(tmp_path):
    encoder = VideoEncoder(tmp_path / "nowhere" / "v.mp4", "h264", 30)
    encoder.add(np.zeros((32, 32, 3), dtype=np.uint8))
    with pytest.raises(RuntimeError, match="encoding v.mp4 failed"):
        encoder.finish(1)


def test_cancel_leaves_nothing(tmp_path):
    encoder = VideoEncoder(tmp_path / "v.mp4", "h264", 30)
    for image in moving_square(5):
        encoder.add(image)
    encoder.cancel()
    assert list(tmp_path.iterdir()) == []


def test_a_jpeg_shows_the_image_with_even_sides():
    image = moving_square(1, size=65)[0]
    codec = av.CodecContext.create("mjpeg", "r")
    (frame,) = codec.decode(av.Packet(encode_jpeg(image)))
    decoded = frame.to_ndarray(format="rgb24")
    assert decoded.shape == (64, 64, 3)
    assert np.abs(decoded.astype(int) - image[:64, :64]).mean() < 6


def test_a_lower_quality_gives_a_smaller_jpeg():
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    assert len(encode_jpeg(noise, coarsest_quantizer=12)) < 0.8 * len(encode_jpeg(noise))


def test_a_jpeg_encoder_is_used_again():
    encoder = JpegEncoder()
    first, second = moving_square(2)
    assert encoder.encode(first) == encode_jpeg(first)
    assert encoder.encode(second) == encode_jpeg(second)


def test_a_full_disk_is_said_as_such(tmp_path):
    (tmp_path / "full.mp4").symlink_to("/dev/full")
    images = np.random.default_rng(0).integers(0, 256, (60, 64, 64, 3), dtype=np.uint8)
    with pytest.raises(OSError, match="encoding full.mp4 failed: No space left") as raised:
        encode(tmp_path / "full.mp4", images)
    assert raised.value.errno == errno.ENOSPC

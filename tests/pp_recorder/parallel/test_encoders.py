"""Episodes that are encoded in other processes than the one that makes their images."""

import os
import signal
from contextlib import closing
from functools import partial

import av
import numpy as np
import pytest

from pp_recorder.dataset.schema import DatasetSchema, Feature, image_feature
from pp_recorder.parallel.encoders import EncoderPool, UnseenEpisode
from pp_recorder.parallel.processes import Died
from pp_recorder.rollout import Episode, Step

SIZES = {"left": (32, 48), "right": (32, 32)}
LENGTHS = [9, 1, 5, 9, 3, 7, 2]
FATAL = 5  # number of the episode that ends its encoder's process


def make_schema(folder=None, deaths=0, cameras=tuple(SIZES)):
    """Return a schema; the fatal episode's row ends the process so many times."""

    def row(step):
        number = step.observation["agent_pos"] if cameras else step.observation
        if number[0] == FATAL and len(list(folder.iterdir())) < deaths:
            (folder / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        views = {f"observation.images.{c}": step.observation["pixels"][c] for c in cameras}
        return {"action": number, **views}

    features = {"action": Feature("float32", (2,))}
    features |= {f"observation.images.{c}": image_feature(*SIZES[c]) for c in cameras}
    return DatasetSchema(features, row, 30, "tidy up", "robot", {"seed": 3})


def draw(number, images):
    for camera, (planes, samples) in images.items():
        for k, picture in enumerate(pictures(number, camera)):
            planes[k] = av.VideoFrame.from_ndarray(picture).reformat(format="yuv420p").to_ndarray()
            samples[k] = picture[2::4, 2::4]


def pictures(number, camera):
    """Return the pictures of an episode, each of which fades from left to right."""
    height, width = SIZES[camera]
    grey = 20 * number + 10 * list(SIZES).index(camera) + np.arange(LENGTHS[number])
    fading = grey[:, None, None] + np.linspace(0, 60, width)
    return fading.repeat(height, 1).astype(np.uint8)[..., None].repeat(3, 3)


def unseen(number):
    length = LENGTHS[number]
    steps = [
        Step(i, np.array([number, i], np.float32), {}, np.zeros(2), np.zeros(2), 0.0,
             i == length - 1, True, "")
        for i in range(length)
    ]  # fmt: skip
    return UnseenEpisode(
        Episode(number, number, length, True, {}, ()), steps, partial(draw, number)
    )


def brightness(payload, camera, tmp_path):
    path = tmp_path / "video.mp4"
    path.write_bytes(payload.contents[f"observation.images.{camera}"])
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(video=0)]


def assert_encoded(payload, number, tmp_path):
    length = LENGTHS[number]
    numbers = payload.episode.columns["action"]
    assert numbers.tolist() == [[number, i] for i in range(length)]
    for camera in SIZES:
        shown = pictures(number, camera)
        np.testing.assert_allclose(
            brightness(payload, camera, tmp_path), shown.mean((1, 2, 3)), atol=2.5
        )


@pytest.mark.parametrize("count", [1, 3])
def test_episodes_come_back_in_their_order_with_their_images(tmp_path, count):
    pool = EncoderPool(partial(make_schema, tmp_path), tmp_path, SIZES, max(LENGTHS), count)
    with closing(pool):
        for numbers in (range(5), [], [6, 5]):  # as many as there is room for, none, some more
            payloads = pool.encode([unseen(number) for number in numbers])
            for number, payload in zip(numbers, payloads, strict=True):
                assert_encoded(payload, number, tmp_path)
        assert not list(tmp_path.rglob("observation*")), "payloads hold the videos"


def test_episodes_without_images(tmp_path):
    factory = partial(make_schema, tmp_path, cameras=())
    with closing(EncoderPool(factory, tmp_path, {}, max(LENGTHS), 2)) as pool:
        payloads = pool.encode([unseen(number) for number in (3, 0)])
    assert [len(payload.episode.columns["action"]) for payload in payloads] == [9, 9]
    assert [payload.contents for payload in payloads] == [{}, {}]


@pytest.mark.parametrize("deaths", [1, 2])
def test_the_images_outlive_an_encoder(tmp_path, deaths, caplog):
    folder = tmp_path / "deaths"
    folder.mkdir()
    numbers = [0, FATAL, 3, 4]
    pool = EncoderPool(partial(make_schema, folder, deaths), tmp_path, SIZES, max(LENGTHS), 2)
    with closing(pool):
        payloads = dict(zip(numbers, pool.encode([unseen(n) for n in numbers]), strict=True))
        again = pool.encode([unseen(FATAL)])
    if deaths == 2:
        assert payloads.pop(FATAL) == Died("SIGKILL")
    for number, payload in (*payloads.items(), (FATAL, *again)):
        assert_encoded(payload, number, tmp_path)
    assert f"the process of episode {FATAL} died (SIGKILL)" in caplog.text


def test_an_image_that_cannot_be_made_is_an_error(tmp_path):
    def fail(images):
        raise RuntimeError("out of memory")

    pool = EncoderPool(partial(make_schema, tmp_path), tmp_path, SIZES, max(LENGTHS), 2)
    broken = UnseenEpisode(unseen(1).episode, unseen(1).steps, fail)
    with closing(pool), pytest.raises(RuntimeError, match="out of memory"):
        pool.encode([unseen(0), broken])

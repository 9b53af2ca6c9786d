"""The packets that a viewer gets who is slower than the images come."""

import asyncio

import numpy as np

from pp_bridge.encoder import Vp8Encoder
from pp_bridge.webrtc import _MAX_BACKLOG, _Track


def test_a_slow_viewer_misses_images_and_continues_with_a_key_frame():
    async def watch() -> None:
        group, encoder = set(), Vp8Encoder()
        slow, quick = _Track(group, lambda: None), _Track(group, lambda: None)
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)

        def send(shift: int) -> None:
            key_frame = any(track.needs_key_frame for track in (slow, quick))
            packets = encoder.encode(np.roll(noise, shift, axis=0), key_frame)
            for track in (slow, quick):
                track.push(packets)

        for shift in range(3 * _MAX_BACKLOG):
            send(shift)
            assert (await quick.recv()).size > 0, "a viewer who keeps up misses none"
        received = [await slow.recv() for _ in range(_MAX_BACKLOG)]
        assert received[0].is_keyframe
        assert not any(packet.is_keyframe for packet in received[1:])
        send(0)
        assert (await asyncio.wait_for(slow.recv(), 1)).is_keyframe, "and none between"
        slow.stop()
        quick.stop()
        assert group == set()

    asyncio.run(watch())

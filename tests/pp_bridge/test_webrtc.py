"""What a viewer gets who is slower than the pictures come."""

import asyncio

import numpy as np

from pp_bridge.encoder import Encoder
from pp_bridge.webrtc import _BACKLOG, _Track


def test_a_slow_viewer_misses_pictures_and_is_in_step_again_with_a_whole_one():
    async def watch() -> None:
        group, encoder = set(), Encoder()
        slow, quick = _Track(group, lambda: None), _Track(group, lambda: None)
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)

        def show(shift: int) -> None:
            whole = any(track.wants_whole for track in (slow, quick))
            packets = encoder.video(np.roll(noise, shift, axis=0), whole)
            for track in (slow, quick):
                track.offer(packets)

        for shift in range(3 * _BACKLOG):
            show(shift)
            assert (await quick.recv()).size > 0, "who keeps up misses none"
        missed = [await slow.recv() for _ in range(_BACKLOG)]
        assert missed[0].is_keyframe
        assert not any(packet.is_keyframe for packet in missed[1:])
        show(0)
        assert (await asyncio.wait_for(slow.recv(), 1)).is_keyframe, "and none between"
        slow.stop()
        quick.stop()
        assert group == set()

    asyncio.run(watch())

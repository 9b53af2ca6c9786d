"""The live view: every picture is encoded once, for all who watch, by WebRTC or as JPEGs.

The only file that knows aiortc.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import av
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)

from pp_bridge.encoder import Encoder
from pp_bridge.shared_state import MAX_VIEWERS, SharedState

_POLL = 0.005  # s between two looks at the shared state while somebody watches
_SHORTEST = 1 / 31  # s between two pictures, however fast the collection is
_REPEAT = 0.5  # s after which a picture is sent again, for who has just come or has lost one
_CONNECT_WITHIN = 20.0  # s
_BACKLOG = 8  # pictures that may wait for a viewer before some are dropped
_ADDRESSES = ("a=candidate", "a=end-of-candidates")
_CODECS = ("video/VP8", "video/rtx")  # what every browser decodes, and repairs


class OfferError(ValueError):
    """A viewer's offer can't be answered; the message says why."""


class LiveStream:
    """Shows the shared state's pictures to viewers, as long as there are any.

    Args:
        shared_state: Where the pictures are.
    """

    def __init__(self, shared_state: SharedState) -> None:
        self._shared_state = shared_state
        self._tracks: dict[str, set[_Track]] = {name: set() for name in shared_state.cameras}
        self._jpegs: dict[str, set[asyncio.Queue[bytes]]] = {
            name: set() for name in shared_state.cameras
        }
        self._peers: set[RTCPeerConnection] = set()
        self._encoders: dict[str, Encoder] = {}
        self._pump: asyncio.Task[None] | None = None
        self._timers: set[asyncio.Task[None]] = set()

    async def answer(self, sdp: str) -> str:
        """The SDP answer to a browser's offer, which asks for one video per camera.

        Raises:
            OfferError: It is no such offer, or there are too many viewers.
        """
        if len(self._peers) >= MAX_VIEWERS:
            raise OfferError(
                f"{MAX_VIEWERS} viewers are watching already; close one, or use the JPEG stream"
            )
        # No servers: the viewer reaches this machine, or falls back.
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._peers.add(peer)
        peer.on("connectionstatechange", lambda: self._on_state(peer))
        try:
            answer = await self._negotiate(peer, sdp)
        except Exception as error:  # whatever a library makes of a stranger's text
            await self._drop(peer)
            raise OfferError(
                f"the offer can't be answered: {error or type(error).__name__}"
            ) from error
        self._later(self._require_connected(peer))
        return answer

    async def jpegs(self, camera: str) -> AsyncIterator[bytes]:
        """JPEGs of a camera, as they come; slow readers miss some."""
        mailbox: asyncio.Queue[bytes] = asyncio.Queue(1)
        with self._listening(self._jpegs[camera], mailbox):
            while True:
                yield await mailbox.get()

    async def close(self) -> None:
        """Says good-bye to all viewers by WebRTC."""
        for peer in list(self._peers):
            await self._drop(peer)

    async def _negotiate(self, peer: RTCPeerConnection, sdp: str) -> str:
        # The browser finds us. Its own addresses are of no use: most are mDNS names. Nor must the
        # list of them end, or it would count as tried in vain.
        lines = [line for line in sdp.splitlines() if not line.startswith(_ADDRESSES)]
        await peer.setRemoteDescription(RTCSessionDescription("\r\n".join([*lines, ""]), "offer"))
        videos = [t for t in peer.getTransceivers() if t.kind == "video"]
        cameras = self._shared_state.cameras
        if len(videos) != len(cameras):
            raise ValueError(f"expected one video for each of {list(cameras)}, got {len(videos)}")
        codecs = RTCRtpSender.getCapabilities("video").codecs
        for camera, transceiver in zip(cameras, videos, strict=True):
            transceiver.setCodecPreferences([c for c in codecs if c.mimeType in _CODECS])
            peer.addTrack(_Track(self._tracks[camera], self._changed))
        await peer.setLocalDescription(await peer.createAnswer())
        return peer.localDescription.sdp

    async def _require_connected(self, peer: RTCPeerConnection) -> None:
        await asyncio.sleep(_CONNECT_WITHIN)
        if peer.connectionState != "connected":
            await self._drop(peer)

    def _on_state(self, peer: RTCPeerConnection) -> None:
        if peer.connectionState in ("failed", "closed"):
            self._later(self._drop(peer))

    async def _drop(self, peer: RTCPeerConnection) -> None:
        self._peers.discard(peer)
        for sender in peer.getSenders():
            if sender.track:
                sender.track.stop()
        await peer.close()
        self._changed()

    def _later(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._timers.add(task)  # or it might be collected before it has run
        task.add_done_callback(self._timers.discard)

    @contextmanager
    def _listening(self, group: set[Any], member: Any) -> Iterator[None]:
        group.add(member)
        self._changed()
        try:
            yield
        finally:
            group.discard(member)
            self._changed()

    def _changed(self) -> None:
        """Counts the viewers, and sees to it that pictures flow if there are any."""
        jpegs = max((len(group) for group in self._jpegs.values()), default=0)
        tracks = max((len(group) for group in self._tracks.values()), default=0)
        self._shared_state.viewers = jpegs + tracks
        if self._shared_state.viewers and (self._pump is None or self._pump.done()):
            self._pump = asyncio.ensure_future(self._flow())

    async def _flow(self) -> None:
        """Encodes and hands out pictures until nobody watches any more."""
        seen, sent = -1, 0.0
        self._encoders = {name: Encoder() for name in self._shared_state.cameras}
        while self._shared_state.viewers:
            count = self._shared_state.image_count
            wait = _REPEAT if count == seen else _SHORTEST
            if count == 0 or time.monotonic() - sent < wait:
                await asyncio.sleep(_POLL)
                continue
            seen, sent = count, time.monotonic()
            for camera, picture in (await asyncio.to_thread(self._shared_state.images)).items():
                await self._hand_out(camera, picture)

    async def _hand_out(self, camera: str, picture: np.ndarray) -> None:
        encoder, tracks, jpegs = self._encoders[camera], self._tracks[camera], self._jpegs[camera]
        if tracks:
            whole = any(track.wants_whole for track in tracks)
            packets = await asyncio.to_thread(encoder.video, picture, whole)
            for track in list(tracks):
                track.offer(packets)
        if jpegs:
            jpeg = await asyncio.to_thread(encoder.jpeg, picture)
            for mailbox in list(jpegs):
                if mailbox.empty():
                    mailbox.put_nowait(jpeg)


class _Track(MediaStreamTrack):
    """One camera's encoded pictures on their way to one viewer."""

    kind = "video"

    def __init__(self, group: set["_Track"], changed: Any) -> None:
        super().__init__()
        self._group, self._changed = group, changed
        self._packets: asyncio.Queue[av.Packet] = asyncio.Queue()
        self._in_step = False  # nothing can be decoded before a picture that stands alone

    @property
    def wants_whole(self) -> bool:
        """Whether it waits for a picture that stands alone, and has room for it."""
        return not self._in_step and self._packets.qsize() < _BACKLOG

    async def recv(self) -> av.Packet:
        """The next packet; the viewer is connected from the first call on."""
        if self not in self._group and self.readyState == "live":
            self._group.add(self)
            self._changed()
        return await self._packets.get()

    def offer(self, packets: list[av.Packet]) -> None:
        """Queues packets, or drops what the viewer is too slow for."""
        for packet in packets:
            room = self._packets.qsize() < _BACKLOG
            self._in_step = room and (self._in_step or packet.is_keyframe)
            if self._in_step:
                self._packets.put_nowait(packet)

    def stop(self) -> None:
        """Takes no more packets."""
        super().stop()
        self._group.discard(self)
        self._changed()

"""The live view by WebRTC or as JPEGs; each image is encoded once for all viewers.

This is the only module that uses aiortc.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
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

from pp_bridge.encoder import Vp8Encoder
from pp_bridge.shared_state import MAX_VIEWERS, SharedState
from pp_recorder.dataset.video import JpegEncoder

_POLL_INTERVAL = 0.005  # s between two looks at the shared state while there are viewers
_MIN_INTERVAL = 1 / 31  # s between two images, however fast the collection is
_REPEAT_INTERVAL = 0.5  # s after which an image is sent again, for new viewers and lost packets
_CONNECT_TIMEOUT = 20.0  # s
_COARSEST_QUANTIZER = 6  # of JPEGs, for slow networks
_MAX_BACKLOG = 8  # packets that may wait for a viewer before some are dropped
_CANDIDATE_LINES = ("a=candidate", "a=end-of-candidates")
_MIME_TYPES = ("video/VP8", "video/rtx")  # every browser decodes VP8; rtx resends lost packets


class OfferError(ValueError):
    """A viewer's offer that can't be answered; the message says why."""


class LiveStream:
    """A stream of every camera's images, which runs while there are viewers.

    Args:
        shared_state: Source of the images; the number of viewers is written to it.
    """

    def __init__(self, shared_state: SharedState) -> None:
        self._shared_state = shared_state
        self._tracks: dict[str, set[_Track]] = {name: set() for name in shared_state.known_cameras}
        self._mailboxes: dict[str, set[asyncio.Queue[bytes]]] = {
            name: set() for name in shared_state.known_cameras
        }
        self._peers: set[RTCPeerConnection] = set()
        self._vp8_encoders: dict[str, Vp8Encoder] = {}
        self._jpeg_encoders: dict[str, JpegEncoder] = {}
        self._stream_task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, sdp: str) -> str:
        """Return the SDP answer to a browser's offer, which must ask for one video per camera.

        Raises:
            OfferError: The offer asks for something else, or there are too many viewers.
        """
        if len(self._peers) >= MAX_VIEWERS:
            raise OfferError(
                f"{MAX_VIEWERS} viewers are watching already; close one, or use the JPEG stream"
            )
        # No STUN or TURN servers: a viewer who can't reach this machine falls back to JPEGs.
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._peers.add(peer)
        peer.on("connectionstatechange", lambda: self._on_state(peer))
        try:
            answer = await self._negotiate(peer, sdp)
        except Exception as error:  # a library may fail in any way on a stranger's text
            await self._disconnect(peer)
            raise OfferError(
                f"the offer can't be answered: {error or type(error).__name__}"
            ) from error
        self._run_later(self._require_connected(peer))
        return answer

    async def jpegs(self, camera: str) -> AsyncIterator[bytes]:
        """Yield a camera's images as JPEGs while it is shown; a slow reader misses some."""
        mailbox: asyncio.Queue[bytes] = asyncio.Queue(1)
        with self._registered(self._mailboxes[camera], mailbox):
            while camera in self._shared_state.cameras:
                with suppress(asyncio.TimeoutError):
                    yield await asyncio.wait_for(mailbox.get(), 2 * _REPEAT_INTERVAL)

    async def close(self) -> None:
        """Close all WebRTC connections."""
        for peer in list(self._peers):
            await self._disconnect(peer)

    async def _negotiate(self, peer: RTCPeerConnection, sdp: str) -> str:
        # The browser connects to us. Its own candidates are useless, as most are mDNS names; they
        # are removed together with their end mark, or ICE would fail once it had tried them all.
        lines = [line for line in sdp.splitlines() if not line.startswith(_CANDIDATE_LINES)]
        await peer.setRemoteDescription(RTCSessionDescription("\r\n".join([*lines, ""]), "offer"))
        videos = [t for t in peer.getTransceivers() if t.kind == "video"]
        cameras = self._shared_state.cameras
        if len(videos) != len(cameras):
            raise ValueError(f"expected one video for each of {list(cameras)}, got {len(videos)}")
        codecs = RTCRtpSender.getCapabilities("video").codecs
        for camera, transceiver in zip(cameras, videos, strict=True):
            transceiver.setCodecPreferences([c for c in codecs if c.mimeType in _MIME_TYPES])
            peer.addTrack(_Track(self._tracks[camera], self._update_viewers))
        await peer.setLocalDescription(await peer.createAnswer())
        return peer.localDescription.sdp

    async def _require_connected(self, peer: RTCPeerConnection) -> None:
        await asyncio.sleep(_CONNECT_TIMEOUT)
        if peer.connectionState != "connected":
            await self._disconnect(peer)

    def _on_state(self, peer: RTCPeerConnection) -> None:
        if peer.connectionState in ("failed", "closed"):
            self._run_later(self._disconnect(peer))

    async def _disconnect(self, peer: RTCPeerConnection) -> None:
        self._peers.discard(peer)
        for sender in peer.getSenders():
            if sender.track:
                sender.track.stop()
        await peer.close()
        self._update_viewers()

    def _run_later(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)  # or it might be garbage-collected before it has run
        task.add_done_callback(self._tasks.discard)

    @contextmanager
    def _registered(self, group: set[Any], member: Any) -> Iterator[None]:
        group.add(member)
        self._update_viewers()
        try:
            yield
        finally:
            group.discard(member)
            self._update_viewers()

    def _update_viewers(self) -> None:
        """Count the viewers, and start the stream if there are any."""
        jpegs = max((len(group) for group in self._mailboxes.values()), default=0)
        tracks = max((len(group) for group in self._tracks.values()), default=0)
        self._shared_state.viewers = jpegs + tracks
        if self._shared_state.viewers and (self._stream_task is None or self._stream_task.done()):
            self._stream_task = asyncio.ensure_future(self._stream())

    async def _stream(self) -> None:
        """Encode and distribute images until there are no viewers."""
        seen, sent = -1, 0.0
        self._vp8_encoders = {name: Vp8Encoder() for name in self._shared_state.known_cameras}
        self._jpeg_encoders = {
            name: JpegEncoder(_COARSEST_QUANTIZER) for name in self._shared_state.known_cameras
        }
        while self._shared_state.viewers:
            count = self._shared_state.image_count
            wait = _REPEAT_INTERVAL if count == seen else _MIN_INTERVAL
            if count == 0 or time.monotonic() - sent < wait:
                await asyncio.sleep(_POLL_INTERVAL)
                continue
            seen, sent = count, time.monotonic()
            for camera, image in (await asyncio.to_thread(self._shared_state.images)).items():
                await self._distribute(camera, image)

    async def _distribute(self, camera: str, image: np.ndarray) -> None:
        if tracks := self._tracks[camera]:
            encoder = self._vp8_encoders[camera]
            key_frame = any(track.needs_key_frame for track in tracks)
            packets = await asyncio.to_thread(encoder.encode, image, key_frame)
            for track in list(tracks):
                track.push(packets)
        if mailboxes := self._mailboxes[camera]:
            jpeg = await asyncio.to_thread(self._jpeg_encoders[camera].encode, image)
            for mailbox in list(mailboxes):
                if mailbox.empty():
                    mailbox.put_nowait(jpeg)


class _Track(MediaStreamTrack):
    """A queue of one camera's encoded images for one viewer."""

    kind = "video"

    def __init__(self, group: set["_Track"], update_viewers: Any) -> None:
        super().__init__()
        self._group, self._update_viewers = group, update_viewers
        self._packets: asyncio.Queue[av.Packet] = asyncio.Queue()
        self._decodable = False  # nothing can be decoded before a key frame

    @property
    def needs_key_frame(self) -> bool:
        """Whether it waits for a key frame, and has room for it."""
        return not self._decodable and self._packets.qsize() < _MAX_BACKLOG

    async def recv(self) -> av.Packet:
        """Return the next packet; the first call counts the viewer as connected."""
        if self not in self._group and self.readyState == "live":
            self._group.add(self)
            self._update_viewers()
        return await self._packets.get()

    def push(self, packets: list[av.Packet]) -> None:
        """Queue packets; after a drop for want of room, drop all up to the next key frame."""
        for packet in packets:
            room = self._packets.qsize() < _MAX_BACKLOG
            self._decodable = room and (self._decodable or packet.is_keyframe)
            if self._decodable:
                self._packets.put_nowait(packet)

    def stop(self) -> None:
        """Take no more packets."""
        super().stop()
        self._group.discard(self)
        self._update_viewers()

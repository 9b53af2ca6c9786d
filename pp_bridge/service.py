"""The simulator's process: one loop on the main thread that collects and answers commands."""

import logging
import time
from collections import deque
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gymnasium as gym

from pp_bridge.live_view import FramePublisher
from pp_bridge.messages import BridgeCommand, RefusalError, Reply, StartRequest, scene_defaults
from pp_bridge.options import BridgeOptions
from pp_bridge.shared_state import SharedState
from pp_collect.factory import make_config, make_env, make_expert
from pp_collect.options import SessionOptions
from pp_collect.process import StopRequest
from pp_collect.session import CollectionSession
from pp_env.config import PickPlaceConfig
from pp_env.sim import SIMULATORS, keep_alive
from pp_recorder.command_line import OptionError, select
from pp_recorder.dataset.reader import DatasetError, read_json
from pp_recorder.dataset.writer import require_empty
from pp_recorder.output import describe_error
from pp_recorder.status import StatusFile

_IDLE_TICK = 0.05  # s to wait for a command while idle
_IDLE_IMAGE_RATE = 2.0  # per s, while there are viewers
_RATE_WINDOW = 10.0  # s over which frames per second are counted
_STATUS_TIMEOUT = 1.0  # s to wait for a reader of the status
_MAX_ERROR_LENGTH = 4000  # characters
_RUN_FILE = ".bridge.json"
_LOG = logging.getLogger("bridge")


class RunningCollection:
    """A collection in progress, with its rate and the estimate of the time left.

    Args:
        request: The request that started it.
        options: Options of the collection.
        config: Configuration of the environment.
        env: The environment.
        shared_state: Receives the images.

    Raises:
        RefusalError: The collection can't be started.
    """

    def __init__(
        self,
        request: StartRequest,
        options: SessionOptions,
        config: PickPlaceConfig,
        env: gym.Env,
        shared_state: SharedState,
    ) -> None:
        self.request = request
        try:
            expert = make_expert(options, config)
            watchers = [FramePublisher(shared_state)]
            self.session = CollectionSession(options, config, expert, env, watchers)
        except (FileExistsError, DatasetError) as error:
            raise RefusalError("conflict", str(error)) from None
        except OSError as error:
            raise RefusalError("storage", f"the output can't be written: {error}") from None
        except ValueError as error:
            raise RefusalError("invalid", str(error)) from None
        except Exception as error:  # such as a simulator that can't render any more
            _LOG.exception("not started", extra=request.model_dump())
            raise RefusalError("unavailable", f"it can't be started: {error}") from None
        self._frames_per_episode = expert.typical_steps
        self._frame = 0
        self._times: deque[float] = deque()

    def step(self) -> bool:
        """Record one frame; return False once the collection is complete."""
        going = self.session.step()
        if self.session.between_episodes:
            self._frame = 0
            return going
        self._frame += 1
        now = time.monotonic()
        self._times.append(now)
        while self._times[0] < now - _RATE_WINDOW:
            self._times.popleft()
        return going

    def status(self) -> dict[str, Any]:
        """Return the fields of `pp_bridge.api.Status` that describe a collection."""
        writer, stats = self.session.writer, self.session.stats
        rate = self._frames_per_second()
        return {
            "request": self.request.model_dump(),
            "episodes": writer.num_episodes,
            "frames": writer.num_frames,
            "frame": self._frame,
            "frames_per_episode": self._frames_per_episode,
            "attempts": stats.attempts,
            "successes": stats.successes,
            "success_rate": stats.successes / stats.attempts if stats.attempts else None,
            "failures": dict(stats.failures),
            "frames_per_second": rate,
            "eta_seconds": self._eta(rate),
            "dropped": writer.dropped,
        }

    def _frames_per_second(self) -> float | None:
        if len(self._times) < 2:
            return None
        return (len(self._times) - 1) / (self._times[-1] - self._times[0])

    def _eta(self, rate: float | None) -> float | None:
        if not rate:
            return None
        stats, missing = self.session.stats, self.request.num_episodes
        missing -= self.session.writer.num_episodes
        frames = missing * self._frames_per_episode - self._frame
        if self.request.keep == "success" and stats.attempts:
            frames *= stats.attempts / max(stats.successes, 1)
        return max(frames, 0) / rate


class Service:
    """The service that owns the environment and carries out the web's commands, one at a time.

    Args:
        options: Options of the service.
        config: Configuration of the environment.
        env: The environment, already reset; closed when another one takes its place.
        shared_state: Receives status and images.
        commands: Connection that yields `BridgeCommand`s and takes `Reply`s.
        root: The folder that holds all datasets.
    """

    def __init__(
        self,
        options: BridgeOptions,
        config: PickPlaceConfig,
        env: gym.Env,
        shared_state: SharedState,
        commands: Connection,
        root: Path,
    ) -> None:
        self._options = options
        self._config = config
        self._env = env
        self._shared_state = shared_state
        self._commands = commands
        self._root = root
        self._running: RunningCollection | None = None
        self._status: dict[str, Any] = {**INITIAL_STATUS, "state": "idle"}
        self._totals = dict.fromkeys(INITIAL_STATUS["totals"], 0)
        self._last_image_time = 0.0
        self._interrupted = self._load_interrupted()
        if self._interrupted is not None:
            request = self._interrupted.model_dump()
            self._status |= {"outcome": "interrupted", "request": request}
            _LOG.warning("interrupted before this start", extra=request)
        self._shared_state.publish_status(self.status(), wait=_STATUS_TIMEOUT)

    def work(self, stop: StopRequest) -> None:
        """Run the loop until a stop is requested, and interrupt the collection then.

        Raises:
            RuntimeError: The web's process has ended.
        """
        while not stop.requested:
            self.tick()
        self._end("interrupted")

    def tick(self) -> None:
        """Answer at most one command, then record one frame or idle."""
        self._handle_command(timeout=0.0 if self._running else _IDLE_TICK)
        if self._running:
            self._step_collection(self._running)
        else:
            self._idle()
        self._shared_state.publish_status(self.status())

    def status(self) -> dict[str, Any]:
        """Return the fields of `pp_bridge.api.Status`, and the totals for the metrics."""
        if self._running:
            self._status |= self._running.status()
        return {**self._status, "totals": self._totals}

    def resume(self) -> None:
        """Resume the collection that the end of the last service interrupted, if there is one.

        Raises:
            RefusalError: The collection can't be resumed.
        """
        if self._interrupted is not None:
            self._start(self._interrupted.model_copy(update={"resume": True}))

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _handle_command(self, timeout: float) -> None:
        if not self._commands.poll(timeout):
            return
        try:
            command: BridgeCommand = self._commands.recv()
        except (EOFError, ConnectionError):
            raise RuntimeError("the web's process has ended; its log says why") from None
        reason, detail = None, ""
        try:
            if command.request is None:
                self._stop()
            else:
                self._start(command.request)
        except RefusalError as refusal:
            reason, detail = refusal.reason, str(refusal)
            _LOG.warning("refused", extra={"command": command.name, "reason": detail})
        status = self.status()
        # The client may read the status at once, and must not see an older one.
        self._shared_state.publish_status(status, wait=_STATUS_TIMEOUT)
        self._commands.send(Reply(reason, detail, status))

    def _start(self, request: StartRequest) -> None:
        if self._running:
            raise RefusalError(
                "conflict",
                f"{self._running.request.output_dir} is being collected; stop it, or wait",
            )
        if (
            not self._root.is_dir()
        ):  # it would be created, perhaps on the mount point of a missing disk
            raise RefusalError("storage", f"the root {self._root} is gone; bring it back")
        request = request.in_scene(scene_defaults(self._options))
        options = self._session_options(request)
        self._set_scene(options)
        self._running = RunningCollection(
            request, options, self._config, self._env, self._shared_state
        )
        self._status = {**INITIAL_STATUS, "state": "collecting"}
        self._save_request(request, "collecting")
        _LOG.info("started", extra=request.model_dump())

    def _stop(self) -> None:
        if self._running is None:
            raise RefusalError("conflict", "nothing is being collected")
        self._end("stopped")

    def _step_collection(self, running: RunningCollection) -> None:
        stats, writer = running.session.stats, running.session.writer
        before = stats.attempts, stats.successes, writer.num_episodes, writer.num_frames
        try:
            going = running.step()
        except Exception as error:  # no error of a collection may end the service
            _LOG.exception("failed", extra=running.request.model_dump())
            safe = (
                f"what was finished is intact in {running.request.output_dir}; once there is room, "
                "start it again with 'resume'"
            )
            self._end("failed", describe_error(error, safe) or type(error).__name__)
            return
        after = stats.attempts, stats.successes, writer.num_episodes, writer.num_frames
        for name, old, new in zip(self._totals, before, after, strict=True):
            self._totals[name] += new - old
        if not going:
            self._end("complete")

    def _end(self, outcome: str, error: str | None = None) -> None:
        """End the collection, if one runs, and drop its current episode."""
        running, self._running = self._running, None
        if running is None:
            return
        try:
            running.session.close()
        except Exception as trouble:  # such as a missing disk, or a file that others have damaged
            _LOG.exception("not tidied up", extra=running.request.model_dump())
            error = error or f"the dataset is intact, but not tidied up: {trouble}"
        self._status |= running.status()
        self._status |= {"state": "idle", "outcome": outcome, "frame": 0, "eta_seconds": None}
        self._status["last_error"] = error and error[:_MAX_ERROR_LENGTH]
        self._save_request(running.request, outcome)
        episodes = running.session.writer.num_episodes
        _LOG.info(outcome, extra={**running.request.model_dump(), "episodes": episodes})

    def _idle(self) -> None:
        keep_alive()
        now = time.monotonic()
        if self._shared_state.viewers and now > self._last_image_time + 1.0 / _IDLE_IMAGE_RATE:
            unwrapped: Any = self._env.unwrapped
            self._shared_state.publish_images(unwrapped.render_cameras())
            self._last_image_time = now

    def _session_options(self, request: StartRequest) -> SessionOptions:
        """Return the options of a collection: the service's, and those of the request.

        Raises:
            RefusalError: They do not fit together.
        """
        values = {**request.options(), "output": self._root / request.output_dir}
        if not request.use_ycb:  # how the service shows the YCB set is no matter then
            values |= {"ycb_meshes": None, "ycb_assets": SessionOptions.ycb_assets}
        try:
            return select(SessionOptions, self._options, **values)
        except OptionError as error:
            raise RefusalError("invalid", f"'{error.name}' {error.problem}") from None
        except ValueError as error:  # options that are sound one by one, but not together
            raise RefusalError("invalid", str(error)) from None

    def _set_scene(self, options: SessionOptions) -> None:
        """Replace the environment unless it has the scene of these options.

        Raises:
            RefusalError: There is no such scene, or nowhere to record it; all is as it was.
        """
        try:
            config = make_config(options)
            if not options.resume and isinstance(options.output, Path):
                require_empty(options.output)
        except ValueError as error:
            raise RefusalError("invalid", str(error)) from None
        except FileExistsError as error:
            raise RefusalError("conflict", str(error)) from None
        except OSError as error:
            raise RefusalError("storage", str(error)) from None
        if config == self._config:
            return
        if not SIMULATORS[options.simulator].replaceable:
            raise RefusalError(
                "conflict",
                f"{options.simulator} keeps its first scene until the service ends; leave out what "
                "is different, or start pp-bridge with it",
            )
        with ExitStack() as undo:
            try:
                env = make_env(options, config, cameras=True)
                undo.callback(env.close)
                env.reset(seed=0)  # it renders
            except Exception as error:  # such as a driver without memory
                _LOG.exception("no such scene", extra={"output_dir": str(options.output)})
                raise RefusalError("unavailable", f"the scene can't be made: {error}") from None
            undo.pop_all()
        self._env.close()
        self._env, self._config = env, config
        self._shared_state.show([camera.name for camera in config.cameras])

    def _save_request(self, request: StartRequest, state: str) -> None:
        """Save a request and its state for the next process, in case this one is killed."""
        try:
            StatusFile(self._root / _RUN_FILE, request=request.model_dump()).write(state=state)
        except OSError as error:
            _LOG.error("not remembered", extra={"reason": str(error)})

    def _load_interrupted(self) -> StartRequest | None:
        """Return the request of the collection that the last process left unfinished, or None."""
        try:
            found = read_json(self._root / _RUN_FILE) or {}
            request = StartRequest.model_validate(found["request"])
            interrupted = found["state"] in ("collecting", "interrupted")
        except (ValueError, LookupError, TypeError):
            return None
        return request if interrupted else None


INITIAL_STATUS: dict[str, Any] = {
    "state": "starting",
    "outcome": None,
    "last_error": None,
    "request": None,
    "episodes": 0,
    "totals": {"attempts": 0, "successes": 0, "episodes": 0, "frames": 0},
    "frames_per_second": None,
}

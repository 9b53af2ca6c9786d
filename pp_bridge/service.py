"""The simulator's process: one loop on the main thread that collects, answers and idles."""

import argparse
import json
import logging
import time
from collections import deque
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gymnasium as gym

from collect import StopRequest
from pp_bridge.live_view import FramePublisher
from pp_bridge.messages import Command, RefusalError, Reply, StartRequest
from pp_bridge.shared_state import SharedState
from pp_collect.session import Collection, make_expert
from pp_env.config import PickPlaceConfig
from pp_env.sim import keep_alive
from pp_recorder.dataset.reader import DatasetError
from pp_recorder.status import StatusFile

_IDLE_TURN = 0.05  # s
_IDLE_PICTURES = 2.0  # per s, while somebody watches
_RATE_OVER = 10.0  # s over which frames per second are counted
_PATIENCE = 1.0  # s
_LONGEST_ERROR = 4000  # characters
_RUN_FILE = ".bridge.json"
_LOG = logging.getLogger("bridge")


class Run:
    """One collection that was asked for.

    Args:
        request: What was asked for.
        args: As of collect.py.
        config: The environment's.
        env: The environment.
        board: Where its pictures are shown.

    Raises:
        RefusalError: It can't be started.
    """

    def __init__(
        self,
        request: StartRequest,
        args: argparse.Namespace,
        config: PickPlaceConfig,
        env: gym.Env,
        board: SharedState,
    ) -> None:
        self.request = request
        try:
            expert = make_expert(args.steps_per_segment, args.noise_rad, args.wander_rad, config)
            self.collection = Collection(args, config, expert, env, [FramePublisher(board)])
        except (FileExistsError, DatasetError) as error:
            raise RefusalError("conflict", str(error)) from None
        except OSError as error:
            raise RefusalError("storage", f"the output can't be written: {error}") from None
        except ValueError as error:
            raise RefusalError("invalid", str(error)) from None
        except Exception as error:  # such as a simulator that can't draw any more
            _LOG.exception("not started", extra=request.model_dump())
            raise RefusalError("unavailable", f"it can't be started: {error}") from None
        self._frames_per_episode = expert.num_steps
        self._frame = 0
        self._times: deque[float] = deque()

    def step(self) -> bool:
        """Drives one frame; False once the collection is complete."""
        going = self.collection.step()
        if self.collection.between_episodes:
            self._frame = 0
            return going
        self._frame += 1
        now = time.monotonic()
        self._times.append(now)
        while self._times[0] < now - _RATE_OVER:
            self._times.popleft()
        return going

    def status(self) -> dict[str, Any]:
        """The part of `pp_bridge.api.Status` that tells of a collection."""
        writer, tally = self.collection.writer, self.collection.tally
        rate = self._frames_per_second()
        return {
            "request": self.request.model_dump(),
            "episodes": writer.num_episodes,
            "frames": writer.num_frames,
            "frame": self._frame,
            "frames_per_episode": self._frames_per_episode,
            "attempts": tally.attempts,
            "successes": tally.successes,
            "success_rate": tally.successes / tally.attempts if tally.attempts else None,
            "failures": dict(tally.failures),
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
        tally, missing = self.collection.tally, self.request.num_episodes
        missing -= self.collection.writer.num_episodes
        frames = missing * self._frames_per_episode - self._frame
        if self.request.keep == "success" and tally.attempts:
            frames *= tally.attempts / max(tally.successes, 1)
        return max(frames, 0) / rate


class Service:
    """Holds the environment, and does with it what it is asked for.

    Args:
        args: The scene's options, as of collect.py.
        config: The environment's.
        env: The environment, reset once.
        board: Where status and pictures are shown.
        commands: Where requests come from and replies go to.
        root: The folder that holds all datasets.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        config: PickPlaceConfig,
        env: gym.Env,
        board: SharedState,
        commands: Connection,
        root: Path,
    ) -> None:
        self._args = args
        self._config = config
        self._env = env
        self._board = board
        self._commands = commands
        self._root = root
        self._run: Run | None = None
        self._status: dict[str, Any] = {**NO_RUN, "state": "idle"}
        self._totals = dict.fromkeys(NO_RUN["totals"], 0)
        self._pictured = 0.0
        self._interrupted = self._recall()
        if self._interrupted is not None:
            request = self._interrupted.model_dump()
            self._status |= {"outcome": "interrupted", "request": request}
            _LOG.warning("interrupted before this start", extra=request)
        self._board.post(self.status(), wait=_PATIENCE)

    def work(self, stop: StopRequest) -> None:
        """Turns the loop until a stop is requested; then nothing is collected any more.

        Raises:
            RuntimeError: The web's process has ended.
        """
        while not stop.requested:
            self.turn()
        self._end("interrupted")

    def turn(self) -> None:
        """One turn: answers at most one request, and drives one frame or idles."""
        self._answer(timeout=0.0 if self._run else _IDLE_TURN)
        if self._run:
            self._drive(self._run)
        else:
            self._idle()
        self._board.post(self.status())

    def status(self) -> dict[str, Any]:
        """What `pp_bridge.api.Status` has, and what the metrics count."""
        if self._run:
            self._status |= self._run.status()
        return {**self._status, "totals": self._totals}

    def resume(self) -> None:
        """Goes on with the collection that the service's end has interrupted, if there is one.

        Raises:
            RefusalError: It can't be.
        """
        if self._interrupted is not None:
            self._start(self._interrupted.model_copy(update={"resume": True}))

    def _answer(self, timeout: float) -> None:
        if not self._commands.poll(timeout):
            return
        try:
            command: Command = self._commands.recv()
        except (EOFError, ConnectionError):
            raise RuntimeError("the web's process has ended; its log says why") from None
        problem, detail = None, ""
        try:
            if command.request is None:
                self._stop()
            else:
                self._start(command.request)
        except RefusalError as refusal:
            problem, detail = refusal.problem, str(refusal)
            _LOG.warning("refused", extra={"command": command.name, "reason": detail})
        status = self.status()
        self._board.post(status, wait=_PATIENCE)  # who asks next must not see what was before
        self._commands.send(Reply(problem, detail, status))

    def _start(self, request: StartRequest) -> None:
        if self._run:
            raise RefusalError(
                "conflict",
                f"{self._run.request.output_dir} is being collected; stop it, or wait",
            )
        if not self._root.is_dir():  # it would be made anew, perhaps where a disk is missing
            raise RefusalError("storage", f"the root {self._root} is gone; bring it back")
        self._run = Run(request, self._with(request), self._config, self._env, self._board)
        self._status = {**NO_RUN, "state": "collecting"}
        self._remember(request, "collecting")
        _LOG.info("started", extra=request.model_dump())

    def _stop(self) -> None:
        if self._run is None:
            raise RefusalError("conflict", "nothing is being collected")
        self._end("stopped")

    def _drive(self, run: Run) -> None:
        tally, writer = run.collection.tally, run.collection.writer
        before = tally.attempts, tally.successes, writer.num_episodes, writer.num_frames
        try:
            going = run.step()
        except Exception as error:  # whatever it is, the service lives and says so
            _LOG.exception("failed", extra=run.request.model_dump())
            self._end("failed", f"{error or type(error).__name__}")
            return
        after = tally.attempts, tally.successes, writer.num_episodes, writer.num_frames
        for name, old, new in zip(self._totals, before, after, strict=True):
            self._totals[name] += new - old
        if not going:
            self._end("complete")

    def _end(self, outcome: str, error: str | None = None) -> None:
        """Ends the collection; the episode in hand, if any, is dropped."""
        run, self._run = self._run, None
        if run is None:
            return
        try:
            run.collection.close()
        except (OSError, RuntimeError) as trouble:  # such as a disk that has vanished
            _LOG.exception("not tidied up", extra=run.request.model_dump())
            error = error or f"the dataset is intact, but not tidied up: {trouble}"
        self._status |= run.status()
        self._status |= {"state": "idle", "outcome": outcome, "frame": 0, "eta_seconds": None}
        self._status["last_error"] = error and error[:_LONGEST_ERROR]
        self._remember(run.request, outcome)
        episodes = run.collection.writer.num_episodes
        _LOG.info(outcome, extra={**run.request.model_dump(), "episodes": episodes})

    def _idle(self) -> None:
        keep_alive()
        now = time.monotonic()
        if self._board.viewers and now > self._pictured + 1.0 / _IDLE_PICTURES:
            unwrapped: Any = self._env.unwrapped
            self._board.show(unwrapped.pictures())
            self._pictured = now

    def _with(self, request: StartRequest) -> argparse.Namespace:
        """The options of a collection: the scene's, and what was asked for."""
        options = {**request.model_dump(), "output": self._root / request.output_dir}
        return argparse.Namespace(**{**vars(self._args), **options})

    def _remember(self, request: StartRequest, state: str) -> None:
        """For the next process, should this one be killed."""
        try:
            StatusFile(self._root / _RUN_FILE, request=request.model_dump()).update(state=state)
        except OSError as error:
            _LOG.error("not remembered", extra={"reason": str(error)})

    def _recall(self) -> StartRequest | None:
        """What the process before this one was collecting when it ended."""
        try:
            found = json.loads((self._root / _RUN_FILE).read_text())
            request = StartRequest.model_validate(found["request"])
            interrupted = found["state"] in ("collecting", "interrupted")
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return request if interrupted else None


NO_RUN: dict[str, Any] = {
    "state": "starting",
    "outcome": None,
    "last_error": None,
    "request": None,
    "episodes": 0,
    "totals": {"attempts": 0, "successes": 0, "episodes": 0, "frames": 0},
    "frames_per_second": None,
}

"""A self-test of the Isaac Sim backend, for whoever has the hardware.

Asks every question that could not be answered without Isaac Sim, prints a table, and writes a
report with pictures and videos, one page to attach to an issue. Example:

    ./python.sh -m pp_collect.isaac_check --output isaac_check
"""

import dataclasses
import faulthandler
import itertools
import json
import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TextIO

import numpy as np
from annotated_types import Ge, Interval
from typing_extensions import Doc

from experts.pick_place import PickPlaceExpert
from pp_collect.factory import make_config, make_expert
from pp_collect.isaac_report import Report
from pp_collect.options import AssetsRoot, CollectOptions, SessionOptions
from pp_collect.schema import describe_environment
from pp_collect.session import CollectionSession
from pp_env import kinematics, panda, rotation, task
from pp_env.config import HOME_JOINT_POS, RenderConfig
from pp_env.env import PickPlaceEnv
from pp_env.gpus import ask_nvidia_smi
from pp_env.layout import OBSERVATION
from pp_env.objects import YCB_OBJECTS
from pp_env.sim import keep_alive, shutdown_app
from pp_env.sim.api import Command, InitialState, SimState
from pp_env.sim.isaac import app as isaac_app
from pp_env.sim.isaac.simulator import ATTACHMENTS, IsaacSimulator
from pp_recorder.checks import inspect_dataset
from pp_recorder.command_line import Form, Options, Pixels, Typed, fail, one_of, parse
from pp_recorder.dataset.reader import Dataset
from pp_recorder.dataset.video import encode_jpeg
from pp_recorder.rollout import Step, iterate_episode
from pp_recorder.status import resident_memory

_PROG = "isaac_check"
HOME = np.array(HOME_JOINT_POS)
_EPISODES = 10  # of the expert, without a crash
_MEMORY_EPISODES = 20
_PERIODS = 30  # control periods of a short episode
_SHARE_CLIPPED = 0.02  # of an image's pixels may be white or black
_STEPS_PER_SEGMENT: int | None = None  # of the recorded episodes; None is the default, a second
_HANGS_AFTER = 1800.0  # s: then a question ends the process
_HANGS_AFTER_EACH = 600.0  # s more for each recorded episode


@dataclass
class Answer:
    """A line of the table: a question and its answer.

    Attributes:
        question: What was asked.
        passed: Whether the answer is what the backend needs; None is for information.
        found: The answer.
        needed: What the backend needs.
        seconds: How long it took.
    """

    question: str
    passed: bool | None
    found: str
    needed: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class CheckOptions(Options):
    """The options of the self-test."""

    output: Annotated[Path, Doc("folder of the report"), Typed("DIR")] = Path("isaac_check")
    assets_root: AssetsRoot = None
    resolution: Annotated[Pixels, Doc("of images: 512, or 640x480")] = RenderConfig.resolution
    attachment: Annotated[
        str | None,
        one_of(ATTACHMENTS),
        Doc("how a grasped object is held; default: the first that works"),
    ] = None
    episodes: Annotated[
        int, Ge(1), Doc(f"to record; {CollectOptions.num_episodes} is the acceptance test")
    ] = 1
    streaming: Annotated[bool, Doc("with the livestream")] = False
    streaming_port: Annotated[int, Interval(ge=1, le=65535), Doc("TCP port of the livestream")] = (
        CollectOptions.streaming_port
    )
    json: Annotated[bool, Form.SWITCH, Doc("only report.json on stdout, the table on stderr")] = (
        False
    )


class SelfTest:
    """The questions, in the order in which they are asked.

    Args:
        sim: The simulator.
        env: The environment around it.
        options: Of the command.
        report: Gets answers, pictures and videos.
    """

    questions = (
        "versions", "startup_measurements", "gains", "hand_follows_kinematics",
        "arm_reaches_its_targets", "object_rests", "reset_repeats", "attachments",
        "fingers_stop_at_the_object", "held_object_stays", "images_are_exposed",
        "wrist_camera_follows", "images_after_reset", "livestream_listens", "expert_succeeds",
        "ycb_files", "ycb_sizes", "throughput", "memory", "recording",
    )  # fmt: skip

    def __init__(
        self, sim: IsaacSimulator, env: PickPlaceEnv, options: CheckOptions, report: Report
    ) -> None:
        self._sim = sim
        self._env = env
        self._config = env.config
        self._options = options
        self._report = report
        self._assets_root = isaac_app.resolve_assets_root(options.assets_root)

    def run(self) -> list[Answer]:
        """Ask every question, and report after each; one that raises has failed.

        Physics is started anew after that, so that the next question finds what it needs. A
        question that hangs ends the process with status 1 and the threads' stacks on stderr; the
        report then names it.
        """
        answers: list[Answer] = []
        for name in self.questions:
            self._report.update(question=name.replace("_", " "))
            limit = _HANGS_AFTER
            if name == "recording":
                limit += _HANGS_AFTER_EACH * self._options.episodes
            if sys.__stderr__ is not None:
                faulthandler.dump_traceback_later(limit, exit=True, file=sys.__stderr__)
            try:
                answers.append(self._ask(name))
            finally:
                faulthandler.cancel_dump_traceback_later()
            print(_line(answers[-1]), flush=True)
            self._report.update(results=[vars(a) for a in answers], question=None)
        return answers

    def _ask(self, name: str) -> Answer:
        begin = time.perf_counter()
        try:
            answer = getattr(self, name)()
        except Exception as error:
            traceback.print_exc()
            found = _name(error)
            try:
                self._sim.restart()  # a hard reset, whatever state the error left
            except Exception as another:
                found += f"; the hard reset after it failed, too: {_name(another)}"
            answer = Answer(name.replace("_", " "), False, found, "no error")
        return dataclasses.replace(answer, seconds=round(time.perf_counter() - begin, 2))

    def versions(self) -> Answer:
        """Report the versions of Isaac Sim and numpy, which must be Kit's own."""
        found = f"Isaac Sim {isaac_app.version()[2]}, numpy {np.__version__}"
        return Answer("versions", None, found, "numpy 1.26 in 4.5, 2 in 6.0")

    def startup_measurements(self) -> Answer:
        """Report what the simulator measured when it started."""
        found = {k: v for k, v in self._sim.description.items() if k != "gains"}
        return Answer("measured at start", found["renders_per_frame"] <= 4, json.dumps(found))

    def gains(self) -> Answer:
        """Check that the servos have the gains that were set."""
        gains = self._sim.description["gains"]
        stiffness, damping = self._sim.read_gains()
        equal = np.allclose(stiffness, gains["stiffness"], rtol=1e-3) and np.allclose(
            damping, gains["damping"], rtol=1e-3
        )
        asset = f"asset's own: {gains['stiffness_of_asset']}, {gains['damping_of_asset']}"
        return Answer("gains are those that were set", equal, asset)

    def hand_follows_kinematics(self) -> Answer:
        """Check that physics puts `panda_hand` where the published kinematics do."""
        self._start()
        worst = 0.0
        for target in (HOME, HOME + 0.2, HOME - [0.3, 0.1, 0.2, 0, 0.3, 0, 0.4]):
            state = self._steps(Command(target, panda.FINGER_OPEN), _PERIODS)
            position = kinematics.forward(state.joint_pos)[0]
            worst = max(worst, float(np.linalg.norm(state.eef.position - position)))
        return Answer("panda_hand is where kinematics say", worst < 1e-3, _mm(worst), "< 1 mm")

    def arm_reaches_its_targets(self) -> Answer:
        """Measure how far the arm is from a target after standing for a second."""
        self._start()
        target = HOME + np.array([0.3, -0.1, 0.2, 0.2, -0.2, 0.1, 0.2])
        state = self._steps(Command(target, 0.01), _PERIODS)
        error = float(np.abs(state.joint_pos - target).max())
        return Answer("arm reaches its targets", error < 0.01, f"{error:.4f} rad", "< 0.01 rad")

    def object_rests(self) -> Answer:
        """Check that the object lies still on the table: contact offsets are a guess."""
        initial = self._start()
        state = self._steps(Command(HOME, panda.FINGER_OPEN), 2 * _PERIODS)
        drift = float(np.linalg.norm(state.object.position - initial.object.position))
        speed = float(np.linalg.norm(state.object_vel))
        found = f"moved {_mm(drift)}, {speed:.4f} m/s"
        return Answer("object rests", drift < 1e-3 and speed < 0.01, found, "< 1 mm, < 0.01 m/s")

    def reset_repeats(self) -> Answer:
        """Check that the same start and commands give the same states, whatever went before."""
        first = self._short_episode()
        self._start(pick=(0.6, -0.2))
        self._steps(Command(HOME - 0.2, 0.02), 5)
        difference = float(np.abs(self._short_episode() - first).max())
        found = f"not repeatable: differs by {difference:.2e}" if difference else "bit for bit"
        return Answer("reset repeats", difference == 0.0, found, "bit for bit")

    def attachments(self) -> Answer:
        """Try each way of holding the object twice, unless one was chosen to be tested alone."""
        question, chosen = "ways to hold the object", self._sim.description["attachment"]
        if self._options.attachment:
            return Answer(question, None, f"others not tried: --attachment {chosen}")
        found, again = self._sim.working_attachments(), self._sim.working_attachments()
        text = f"{found} of {list(ATTACHMENTS)}"
        if found != again:
            text = f"not repeatable: {found}, then {again}"
        ok = chosen in found and found == again
        return Answer(question, ok, text, f"{chosen}, each time")

    def fingers_stop_at_the_object(self) -> Answer:
        """Measure where the fingers stop when the expert closes them on the object."""
        fingers, half = self._lift()[0]["gripper_pos"], self._config.object.size[1] / 2
        ok = bool((abs(fingers - half) < 3e-3).all())
        found = f"{np.round(fingers, 4).tolist()} m"
        return Answer("fingers stop at the object", ok, found, f"{half} m")

    def held_object_stays(self) -> Answer:
        """Measure how far a held object moves in the hand while it is carried."""
        (_, begin), (_, end) = self._lift(), self._lift("MOVE_TO_PLACE")
        drift = float(np.linalg.norm(end - begin))
        return Answer("held object stays in the hand", drift < 2e-3, _mm(drift), "< 2 mm")

    def images_are_exposed(self) -> Answer:
        """Check that images are neither black nor white, and keep them to be looked at."""
        self._start()
        found, ok = [], True
        for name, image in self._images("start").items():
            white, black = float((image >= 254).mean()), float((image <= 1).mean())
            ok = ok and image.std() > 5 and white < _SHARE_CLIPPED and black < _SHARE_CLIPPED
            found.append(f"{name}: mean {image.mean():.0f}, white {white:.1%}, black {black:.1%}")
        return Answer("images are exposed", bool(ok), "; ".join(found), "see usd_lights")

    def wrist_camera_follows(self) -> Answer:
        """Check that the wrist camera moves with the hand."""
        self._start(pick=(0.42, 0.0))
        before = self._images("home")["cam_wrist"].astype(float)
        self._steps(Command(HOME + [0.5, 0, 0, 0, 0, 0, 0], panda.FINGER_OPEN), _PERIODS)
        after = self._images("turned")["cam_wrist"].astype(float)
        changed = float((np.abs(after - before).max(axis=2) > 30).mean())
        return Answer("wrist camera follows the hand", changed > 0.01, f"{changed:.1%} changed")

    def images_after_reset(self) -> Answer:
        """Check that the first image of an episode shows nothing of the one before."""
        self._start(pick=(0.5, -0.2))
        fresh = self._images("fresh")["cam_high"].astype(float)
        self._start(pick=(0.6, 0.2))
        self._images("other")
        self._start(pick=(0.5, -0.2))
        again = self._images("again")["cam_high"].astype(float)
        differing = float((np.abs(again - fresh).max(axis=2) > 40).mean())
        return Answer("no ghost after a reset", differing < 0.005, f"{differing:.2%}", "< 0.5 %")

    def expert_succeeds(self) -> Answer:
        """Check that the expert's episodes run without a crash, and succeed."""
        successes = 0
        for seed in range(_EPISODES):
            last = self._expert_steps(seed)[-1]
            successes += last.success
        found = f"{successes} of {_EPISODES}"
        return Answer("expert succeeds", successes == _EPISODES, found, f"{_EPISODES}")

    def livestream_listens(self) -> Answer:
        """Check that the livestream accepts connections; its pictures are for a person."""
        question, port = "livestream listens", self._options.streaming_port
        if not self._options.streaming:
            return Answer(question, None, "not asked for: --streaming")
        keep_alive()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=10).close()
        except OSError as error:
            return Answer(question, False, f"TCP port {port}: {_name(error)}", "a connection")
        return Answer(question, True, f"TCP port {port}; its images use UDP", "a connection")

    def ycb_files(self) -> Answer:
        """List the YCB objects whose files exist."""
        native = import_module("isaacsim.storage.native")
        found = []
        for folder in ("Axis_Aligned", "Axis_Aligned_Physics"):
            url = isaac_app.asset_url(self._assets_root, f"/Isaac/Props/YCB/{folder}")
            names = [o.name for o in YCB_OBJECTS if _is_file(native, f"{url}/{o.name}.usd")]
            found.append(f"{folder}: {names}")
        return Answer("YCB files", None, "; ".join(found))

    def ycb_sizes(self) -> Answer:
        """Report how far the sizes of the YCB files differ from the table of objects."""
        found = {}
        for obj in [o for o in YCB_OBJECTS if o.asset]:
            url = isaac_app.asset_url(self._assets_root, f"/{obj.asset}")
            try:
                extent = np.sort(_size_of_file(url))
            except Exception as error:  # an own one of pxr, of many lines
                found[obj.name] = f"cannot be read: {type(error).__name__}"
                continue
            wanted = np.sort(obj.size)
            size = min(extent, extent / 100, key=lambda each: float(np.abs(each - wanted).max()))
            off = float(np.abs(size / wanted - 1).max())
            found[obj.name] = f"{np.round(size, 4).tolist()} m, {off:.1%} off"
        return Answer("YCB sizes", None, json.dumps(found))

    def throughput(self) -> Answer:
        """Measure control periods per second, without and with both images."""
        self._start()
        rates = []
        for render in (False, True):
            begin = time.perf_counter()
            for _ in range(_PERIODS):
                self._sim.step(Command(HOME, panda.FINGER_OPEN))
                if render:
                    for camera in self._config.cameras:
                        self._sim.render(camera.name)
            rates.append(_PERIODS / (time.perf_counter() - begin))
        return Answer("steps/s without and with images", None, f"{rates[0]:.0f}, {rates[1]:.1f}")

    def memory(self) -> Answer:
        """Measure memory and GPU memory over episodes; `--restart-every` is for growth."""
        used = []
        for k in range(_MEMORY_EPISODES):
            self._start(pick=(0.45 + 0.01 * (k % 10), 0.1))
            self._steps(Command(HOME + 0.1, 0.0), 5)
            for camera in self._config.cameras:
                self._sim.render(camera.name)
            used.append(((resident_memory() or 0) // 10**6, _gpu_mb()))
        growth = used[-1][0] - used[_MEMORY_EPISODES // 2 - 1][0]
        found = f"{used[0]} to {used[-1]} MB (process, GPU)"
        return Answer(f"memory over {len(used)} episodes", growth < 200, found, "< 200 MB more")

    def recording(self) -> Answer:
        """Record a dataset, decode every frame of its videos and check it as `pp-inspect` does."""
        folder = _free_folder(self._options.output)
        options = _recording(self._options, folder)
        expert, begin = make_expert(options, self._config), time.perf_counter()
        env = PickPlaceEnv(
            simulator=lambda _: self._sim,
            obs_type="pixels_agent_pos",
            config=self._config,
            terminate_on_success=False,
        )
        session = CollectionSession(options, self._config, expert, env)
        try:
            while session.step():
                pass
            session.close()
        finally:
            session.release()
        seconds, dataset = time.perf_counter() - begin, Dataset(folder)
        for camera in dataset.cameras:
            name = camera.rpartition(".")[2]
            self._report.add_video(f"episode_0_{name}", dataset.video_path(0, camera))
        decoded = [
            sum(1 for e in range(dataset.num_episodes) for _ in dataset.frames(e, camera))
            for camera in dataset.cameras
        ]
        errors = [
            f"{result.name}: {finding.message}"
            for result in inspect_dataset(folder)[1]
            for finding in result.findings
            if finding.severity == "error"
        ]
        wanted = options.num_episodes * expert.num_steps
        counts = (dataset.num_episodes, dataset.num_frames)
        found = (
            f"{counts[0]} episodes ({session.stats.successes} succeeded), {counts[1]:,} frames in "
            f"{seconds / 60:.1f} min ({counts[1] / seconds:.1f} per second); decoded {decoded}; "
            f"errors of pp-inspect: {'; '.join(errors) or 'none'}; in {folder.name}"
        )
        ok = counts == (options.num_episodes, wanted) and not errors
        ok = ok and decoded == [wanted] * len(self._config.cameras)
        needed = f"{options.num_episodes} episodes, {wanted:,} frames, decoded from each camera"
        return Answer("recording plays", ok, found, needed)

    def _start(self, pick: tuple[float, float] = (0.5, 0.1)) -> InitialState:
        begin = task.EpisodeStart(np.array(pick), np.array([0.45, 0.0]), np.array([0.8, 0.2, 0.2]))
        initial = task.initial_state(begin, self._config)
        self._sim.reset(initial)
        return initial

    def _steps(self, command: Command, periods: int) -> SimState:
        for _ in range(periods - 1):
            self._sim.step(command)
        return self._sim.step(command)

    def _short_episode(self) -> np.ndarray:
        self._start()
        state = self._steps(Command(HOME + 0.1, 0.0), 5)
        return np.concatenate([state.joint_pos, state.joint_vel, state.object.position])

    def _lift(self, phase: str = "LIFT") -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return the last observation of a phase, and the object in the hand's frame, m."""
        last = [step for step in self._expert_steps(seed=0) if step.phase == phase][-1]
        if not last.info["is_grasped"]:
            raise isaac_app.IsaacSimError(f"the expert does not hold the object at {phase}")
        seen = OBSERVATION.unpack(last.observation)
        offset = last.info["object_pos"] - seen["eef_pos"]
        return seen, rotation.unrotate(seen["eef_quat"], offset)

    def _expert_steps(self, seed: int) -> list[Step]:
        expert = PickPlaceExpert()
        return list(iterate_episode(self._env, expert, [], seed, seed, expert.num_steps))

    def _images(self, label: str) -> dict[str, np.ndarray]:
        found = {c.name: self._sim.render(c.name) for c in self._config.cameras}
        for name, image in found.items():
            self._report.add_picture(f"{label}_{name}", encode_jpeg(image))
        return found


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 if nothing failed, 1 if something did or Isaac Sim did not start, 2 for bad options, 130
        after Ctrl-C.
    """
    options = parse(
        CheckOptions,
        argv,
        prog=_PROG,
        description="Check the Isaac Sim backend on real hardware.",
        example="./python.sh -m pp_collect.isaac_check --output isaac_check",
    )
    given = {k: v for k, v in vars(options).items() if v is not None}
    report = Report(options.output, options=given, machine=describe_machine())
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        report.write()
    except OSError as error:
        fail(_PROG, f"--output cannot be written: {error}")
    status = 1
    with _stdout_for_json() if options.json else nullcontext(sys.stderr) as out:
        try:
            status = _run(options, report)
        finally:
            report.update(exit_status=status)
            print(report.describe_files())
            if options.json:
                print(report.to_json(), end="", file=out, flush=True)
            shutdown_app(status)
    return status


def _run(options: CheckOptions, report: Report) -> int:
    """Run the self-test, and report how it ended; return the exit status."""
    try:
        status = run(options, report)
    except KeyboardInterrupt:
        report.update(state="interrupted", error="stopped with Ctrl-C")
        return 130
    except BaseException as error:
        text = _name(error)
        if isinstance(error, ImportError | RuntimeError):  # of ours: it names the fix
            print(f"error: {error}", file=sys.stderr)
        else:
            traceback.print_exc()
            text = "".join(traceback.format_exception(error))
        report.update(state="failed", error=text)
        if not isinstance(error, Exception | SystemExit):
            raise
        return 1
    report.update(state="complete", exit_status=status)
    return status


def run(options: CheckOptions, report: Report) -> int:
    """Start Isaac Sim, ask every question and report; return the exit status."""
    config = make_config(_recording(options, options.output))
    begin = time.perf_counter()
    sim = IsaacSimulator(
        config,
        assets_root=options.assets_root,
        streaming_port=options.streaming_port if options.streaming else None,
        attachment=next((a for a in ATTACHMENTS if a == options.attachment), None),
    )
    seconds = round(time.perf_counter() - begin, 1)
    report.update(state="running", simulator=sim.description, seconds_to_start=seconds)
    print(f"started in {seconds:.0f} s")
    env = PickPlaceEnv(simulator=lambda _: sim, config=config, terminate_on_success=False)
    try:
        answers = SelfTest(sim, env, options, report).run()
    finally:
        env.close()
    failed = [a.question for a in answers if a.passed is False]
    passed = [a.question for a in answers if a.passed]
    print(f"{len(passed)} passed, {len(failed)} failed, of {len(answers)}")
    return 1 if failed else 0


def describe_machine() -> dict[str, Any]:
    """Return versions, GPUs and driver, as far as they can be found out."""
    try:
        version = isaac_app.version()[2]
    except isaac_app.IsaacSimError as error:
        version = str(error)
    gpus = _nvidia_smi("name,memory.total,driver_version")
    return {
        "Isaac Sim": version,
        "GPU, memory, driver": gpus or "nvidia-smi did not answer",
        **describe_environment(),
    }


def _recording(options: CheckOptions, folder: Path) -> SessionOptions:
    """Return the options of the recorded dataset: failures are kept, to be looked at."""
    return SessionOptions(
        simulator="isaacsim",
        resolution=options.resolution,
        assets_root=options.assets_root,
        num_episodes=options.episodes,
        steps_per_segment=_STEPS_PER_SEGMENT,
        output=folder,
        keep="all",
        video_files="per-episode",
    )


@contextmanager
def _stdout_for_json() -> Iterator[TextIO]:
    """Give stdout, while all that is printed within goes to stderr, Kit's own log included."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        try:
            with redirect_stdout(sys.stderr):
                yield out
        finally:
            os.dup2(out.fileno(), 1)


def _free_folder(parent: Path) -> Path:
    """Return a folder for a dataset that does not exist yet: nothing recorded is overwritten."""
    names = itertools.chain(["dataset"], (f"dataset_{k}" for k in itertools.count(2)))
    return next(parent / name for name in names if not (parent / name).exists())


def _size_of_file(url: str) -> np.ndarray:
    """Return the extents of what a USD file shows, (3,) in m or cm: not every file says which."""
    usd, geom = import_module("pxr.Usd"), import_module("pxr.UsdGeom")
    stage = usd.Stage.Open(url)
    boxes = geom.BBoxCache(usd.TimeCode.Default(), ["default", "render", "proxy"])
    extent = boxes.ComputeWorldBound(stage.GetPseudoRoot()).ComputeAlignedRange()
    return np.array(extent.GetSize())


def _name(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _line(result: Answer) -> str:
    mark = {True: "pass", False: "FAIL", None: "info"}[result.passed]
    needed = f"   (needed: {result.needed})" if result.needed else ""
    return f"{mark}  {result.question:38} {result.found}{needed}"


def _is_file(native: Any, url: str) -> bool:
    """Return whether a file exists; Isaac's own test raises where there is none."""
    try:
        return bool(native.is_file(url))
    except Exception:
        return False


def _mm(metres: float) -> str:
    return f"{1000 * metres:.2f} mm"


def _gpu_mb() -> int:
    """Return the memory in use on the first GPU in MB; 0 if the driver does not tell."""
    used = _nvidia_smi("memory.used")
    return int(used[0].split()[0]) if used and used[0][:1].isdigit() else 0


def _nvidia_smi(columns: str) -> list[str]:
    """Return these properties of each GPU; nothing if the driver does not tell."""
    try:
        return ask_nvidia_smi(columns)
    except (OSError, subprocess.SubprocessError):
        return []


if __name__ == "__main__":
    sys.exit(main())

"""Compare ours with baselines: images and physics per second of CPU time, start-up, memory.

Usage: python -m benchmarks.baselines [--only fetch gym_hil] [--rounds 3] [--seconds 2]

Every baseline has a virtual environment of its own in .venv-baselines, made by the first run.
`benchmarks.baseline` measures it there in a new process, and ours in the same way right before: a
ratio is the median over such pairs, other figures are medians over the rounds. A baseline that
can't be installed or run is listed with its error. Prints a table and writes
benchmarks/results/baselines.json.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks import report, save

# The figure that is compared, by kind of observation.
COMPARED = {"state": "sim_s_per_cpu_s", "images": "images_per_cpu_s"}

_ROOT = Path(__file__).parent.parent
_VENVS = _ROOT / ".venv-baselines"
_TIMEOUT = 180  # s, for one process


class Baseline(NamedTuple):
    """Another environment to compare with.

    Attributes:
        label: Its name in tables.
        requirements: For pip. These versions work together; the newest ones do not.
    """

    label: str
    requirements: tuple[str, ...]


BASELINES = {
    "fetch": Baseline(
        "Gymnasium-Robotics FetchPickAndPlace",
        ("gymnasium-robotics==1.4.2", "mujoco==3.8.1", "imageio"),
    ),
    "robosuite": Baseline(
        "robosuite Lift", ("robosuite==1.5.2", "mujoco==3.3.0", "h5py", "gymnasium<2")
    ),
    "panda_gym": Baseline("panda-gym PandaPickAndPlace", ("panda-gym==3.0.7", "pybullet==3.2.7")),
    "gym_hil": Baseline("gym-hil PandaPickCube", ("gym-hil==0.1.14", "mujoco==3.8.1")),
}


def make_venv(name: str) -> Path:
    """Return the Python of a baseline's virtual environment, which is made if it is absent.

    Raises:
        RuntimeError: It can't be installed.
    """
    folder, requirements = _VENVS / name, BASELINES[name].requirements
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists() or ready.read_text().split() != list(requirements):
        print(f"installing {' '.join(requirements)} into {folder.relative_to(_ROOT)}", flush=True)
        _VENVS.mkdir(exist_ok=True)
        _output([sys.executable, "deploy/bootstrap.py", str(folder)])
        _output([str(python), "-m", "pip", "install", "-qq", *requirements])
        ready.write_text("\n".join(requirements))
    return python


def compare(name: str, kind: str, rounds: int, seconds: float) -> dict[str, list]:
    """Measure ours and a baseline alternately.

    Args:
        name: The baseline's, one of `BASELINES`.
        kind: One of `COMPARED`.
        rounds: Number of measurements of each.
        seconds: CPU time of each measurement, s.

    Returns:
        Figures of every process, "ours" and "theirs", and the "ratios" of ours to theirs.

    Raises:
        RuntimeError: The baseline can't be installed, or a process failed.
    """
    python, key = str(make_venv(name)), COMPARED[kind]
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(_measure(sys.executable, "ours", kind, seconds))
        theirs.append(_measure(python, name, kind, seconds))
    ratios = [mine[key] / other[key] for mine, other in zip(ours, theirs, strict=True)]
    return {"ours": ours, "theirs": theirs, "ratios": ratios}


def medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of every figure; versions are the same in all runs."""
    figures = {key: median(run[key] for run in runs) for key in runs[0] if key != "versions"}
    return {"versions": runs[0]["versions"], **figures}


def _measure(python: str, name: str, kind: str, seconds: float) -> dict[str, Any]:
    command = [python, "-m", "benchmarks.baseline", name, kind, "--seconds", str(seconds)]
    lines = _output(command, _TIMEOUT).splitlines()
    return json.loads(next(line for line in reversed(lines) if line.startswith("{")))


def _output(command: list[str], timeout: float | None = None) -> str:
    environment = {**os.environ, "MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "egl"}
    try:
        done = subprocess.run(
            command, cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"took longer than {timeout} s") from error
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
        raise RuntimeError(f"exit status {done.returncode}: {lines[-1]}")
    return done.stdout


def environments(names: list[str], rounds: int, seconds: float) -> dict[str, dict]:
    """Return the figures, or the "error", of ours and each baseline by label and by observation."""
    ours: dict[str, list[dict]] = {kind: [] for kind in COMPARED}
    baselines: dict[str, dict] = {BASELINES[name].label: {} for name in names}
    for name in names:
        label = BASELINES[name].label
        for kind in COMPARED:
            try:
                runs = compare(name, kind, rounds, seconds)
            except (RuntimeError, OSError) as error:
                print(f"{label}, {kind}: {error}", file=sys.stderr)
                baselines[label][kind] = {"error": str(error)}
                continue
            ours[kind] += runs["ours"]
            ratio = median(runs["ratios"])
            baselines[label][kind] = {**medians(runs["theirs"]), "ratio": ratio}
            print(f"{label}, {kind}: ours is {ratio:.2f} times as fast", flush=True)
    return {"ours": {kind: medians(runs) for kind, runs in ours.items() if runs}, **baselines}


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=BASELINES, default=list(BASELINES),
                        help="default: all")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each")
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU time per process, s")
    args = parser.parse_args()
    save("baselines", {"environments": environments(args.only, args.rounds, args.seconds)})
    report.show("baselines")
    return 0


if __name__ == "__main__":
    sys.exit(main())

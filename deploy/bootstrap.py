"""Makes a virtual environment, installs a project into it, and sees to it that pictures work.

Usage: python3 bootstrap.py VENV [REQUIREMENT]      (standard library only)

Debian and Ubuntu ship Python without ensurepip and without Mesa's EGL. Where this runs as root,
what is missing is installed; elsewhere the one line to type is printed.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

# PyOpenGL, which MuJoCo calls EGL through, also needs libOpenGL.
_MESA = ["libegl1", "libegl-mesa0", "libgl1-mesa-dri", "libopengl0"]
_RENDER_ONCE = (
    "from pp_env import PickPlaceEnv; env = PickPlaceEnv(render_mode='rgb_array'); "
    "env.reset(seed=0); env.render(); env.close()"
)


def main() -> int:
    """Runs the command line; returns the exit status."""
    if sys.version_info < (3, 10):  # noqa: UP036
        print(f"error: Python 3.10 or newer is needed, this is {sys.version}", file=sys.stderr)
        return 1
    folder, requirement = Path(sys.argv[1]), sys.argv[2:]
    if not (folder / "bin" / "pip").exists() and not make_venv(folder):
        return 1
    if not requirement:
        return 0
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.check_call([*pip, "--upgrade", "pip"])  # old ones lose themselves in the resolver
    subprocess.check_call([*pip, "-e", requirement[0]])
    return 0 if ensure_rendering(python) else 1


def make_venv(folder: Path) -> bool:
    """Makes the environment with pip in it; says what to type if that cannot be done."""
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        if not install([package, *_MESA]):
            return False
    print(f"making {folder}", flush=True)
    # In a process of its own, because ensurepip may have come only now.
    return subprocess.call([sys.executable, "-m", "venv", "--clear", str(folder)]) == 0


def ensure_rendering(python: str) -> bool:
    """Draws one picture, after installing Mesa if need be; says what to type if that fails."""
    if subprocess.run([python, "-c", _RENDER_ONCE], capture_output=True).returncode == 0:
        return True
    if not install(_MESA):
        return False
    return subprocess.call([python, "-c", _RENDER_ONCE]) == 0


def install(packages: list[str]) -> bool:
    """Installs Debian packages as root, or says what to type."""
    update = ["apt-get", "update"]
    get = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing {' '.join(packages)}", flush=True)
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (update, get):
            done = subprocess.run(command, env=quiet, capture_output=True, text=True)
        if done.returncode == 0:
            return True
        print(done.stdout + done.stderr, file=sys.stderr)
    line = f"sudo sh -c '{' '.join(update)} && {' '.join(get)}'"
    print(
        f"error: system packages are missing; type this and try again:\n  {line}", file=sys.stderr
    )
    return False


if __name__ == "__main__":
    sys.exit(main())

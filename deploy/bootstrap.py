"""Make a virtual environment, install a project into it, and check that images can be rendered.

Usage: python3 bootstrap.py VENV [REQUIREMENT]      (standard library only)

Debian and Ubuntu ship Python without ensurepip and without Mesa's EGL. Missing packages are
installed if this runs as root; otherwise the command that installs them is printed.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

# PyOpenGL, which MuJoCo calls EGL through, also needs libOpenGL.
_MESA = ["libegl1", "libegl-mesa0", "libgl1-mesa-dri", "libopengl0"]
_PATIENCE = "which takes one to five minutes, depending on the network; pip says nothing meanwhile"
_RENDER_ONCE = (
    "from pp_env import PickPlaceEnv; env = PickPlaceEnv(render_mode='rgb_array'); "
    "env.reset(seed=0); env.render(); env.close()"
)


def main() -> int:
    """Run the command line; return the exit status."""
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
    print(f"installing {requirement[0]} and what it needs into {folder}, {_PATIENCE}", flush=True)
    subprocess.check_call([*pip, "--upgrade", "pip"])  # old ones may never resolve the dependencies
    subprocess.check_call([*pip, "-e", requirement[0]])
    return 0 if ensure_rendering(python) else 1


def make_venv(folder: Path) -> bool:
    """Make the environment with pip in it, or print the command that installs what is missing."""
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        if not install([package, *_MESA]):
            return False
    print(f"making {folder}", flush=True)
    # In another process, because ensurepip may have been installed just now.
    return subprocess.call([sys.executable, "-m", "venv", "--clear", str(folder)]) == 0


def ensure_rendering(python: str) -> bool:
    """Render one image, after installing Mesa if necessary; return False if that fails."""
    if subprocess.run([python, "-c", _RENDER_ONCE], capture_output=True).returncode == 0:
        return True
    if not install(_MESA):
        return False
    return subprocess.call([python, "-c", _RENDER_ONCE]) == 0


def install(packages: list[str]) -> bool:
    """Install Debian packages as root, or print the command that does."""
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

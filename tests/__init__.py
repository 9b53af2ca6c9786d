"""The tests mirror the packages: tests/pp_env/test_task.py tests pp_env/task.py."""

import configparser
from pathlib import Path

ROOT = Path(__file__).parents[1]  # of the repository


def read_setup() -> configparser.ConfigParser:
    """Return the content of setup.cfg."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return setup

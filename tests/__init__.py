"""The tests mirror the packages: tests/pp_env/test_task.py tests pp_env/task.py."""

from pathlib import Path

ROOT = Path(__file__).parents[1]  # of the repository

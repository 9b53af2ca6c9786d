"""A run whose processes are stuck, to be killed: `python -m tests.stuck run_all` or `run_once`."""

import re
import sys
import time

from pp_recorder.parallel.processes import ProcessPool, run_all


class Stuck:
    """A worker that hangs in C, where no other thread of its process gets a turn."""

    def run(self, index):
        print("stuck", flush=True)
        re.match(r"(a+)+$", "a" * 64 + "b")

    def close(self):
        pass


class Boots(Stuck):
    """A worker that takes long to make."""

    def __init__(self):
        print("booting", flush=True)
        time.sleep(600)


if __name__ == "__main__":
    if sys.argv[1] == "run_once":
        ProcessPool(1).run_once(Stuck().run, 0)
    list(run_all({"run_all": Stuck, "boot": Boots}[sys.argv[1]], range(2), 2))

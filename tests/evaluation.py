"""Run `pp-evaluate` without a process for each evaluation."""

from unittest import mock

from pp_collect import evaluate
from pp_recorder.evaluation import runner
from pp_recorder.parallel.processes import run_all


def run(words: list[str], apart: bool = False) -> int:
    """Run the command line; return its exit status.

    Args:
        words: Its words.
        apart: Have a process of its own for a single worker, too, which takes a second or two. The
            policy may then end it.
    """
    if apart:
        return evaluate.main(words)
    with mock.patch.object(runner, "run_all", _run_all_here):
        return evaluate.main(words)


def _run_all_here(*args, apart, **options):
    return run_all(*args, **options)

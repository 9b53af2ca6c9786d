"""Run `pp-evaluate` where torchvision's build does not fit torch's; see `import_lerobot`."""

import sys

from tests.check_dataset import import_lerobot

import_lerobot()  # also in the process of the policy, which imports this module

if __name__ == "__main__":
    from pp_collect import evaluate

    sys.exit(evaluate.main())

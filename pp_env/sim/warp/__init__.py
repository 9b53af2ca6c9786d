"""The environment's simulator on one NVIDIA GPU, with thousands of worlds at once."""

import warp

warp.config.quiet = True  # it would write to standard output, where commands write their results

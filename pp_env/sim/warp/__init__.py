"""The environment's simulator on one NVIDIA GPU, with thousands of worlds at once."""

# pyright: reportAttributeAccessIssue=false

import warp  # pyright: ignore[reportMissingImports]

# It would write to standard output, where commands write their results.
warp.config.log_level = max(warp.config.log_level, warp.LOG_WARNING)

"""Run a policy for many episodes and measure it."""

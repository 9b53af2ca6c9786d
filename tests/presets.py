"""What a machine needs for a preset of images."""

import pytest

from pp_env.config import RENDER_PRESETS


def skip_unless_rendered(preset):
    """Skip a test, and say why, on a machine that cannot render a preset."""
    if RENDER_PRESETS[preset].renderer == "filament":
        from pp_env.sim.mujoco import filament

        try:
            filament.require()
        except RuntimeError as error:
            pytest.skip(str(error))

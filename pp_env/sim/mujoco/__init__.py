"""The environment's simulator on MuJoCo."""

"""The environment's simulator on NVIDIA Isaac Sim."""

"""Runs episodes of any policy in any Gymnasium environment and records them."""

"""Evaluation of a policy over many episodes."""

"""Policies that know the task: the scripted pick-and-place expert."""

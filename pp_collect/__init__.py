"""The application layer: options, collection sessions, evaluation, replay."""

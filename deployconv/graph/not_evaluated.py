"""The error of the functions that run nodes of a model while it is read."""


class NotEvaluated(Exception):
    """Nodes cannot be run here, or what they compute is not certain; the message says why."""

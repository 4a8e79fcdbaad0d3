"""Setup hook of every worker of a cluster on this machine: keeps noise out of the log. Imports nothing heavy."""

import logging


def quiet() -> None:
    """Silences Ray Train's cleaner, which warns every second that a local cluster has no API server.

    It uses a filter because Ray later resets the levels of its loggers.
    """
    cleaner = logging.getLogger("ray.train.v2._internal.execution.controller.placement_group_cleaner")
    cleaner.addFilter(lambda record: record.levelno >= logging.ERROR)

"""What runs first in every worker of a cluster on this machine: less in the log. Imports nothing heavy."""

import logging


def quiet() -> None:
    """Ray Train's cleaner says every second that there is no API server to ask, and a local cluster has none.

    By a filter: Ray sets up its loggers anew later, with their levels.
    """
    cleaner = logging.getLogger("ray.train.v2._internal.execution.controller.placement_group_cleaner")
    cleaner.addFilter(lambda record: record.levelno >= logging.ERROR)

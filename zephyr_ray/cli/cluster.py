"""`zephyr-ray up` and `zephyr-ray down`: a Ray cluster on this machine."""

from __future__ import annotations


def up() -> int:
    """Starts a Ray cluster on this machine, to try jobs on.

        zephyr-ray up
        zephyr-ray submit --local -- zephyr-ray run tiny --set run.root=/a/folder

    It asks for a token, and listens on 127.0.0.1 only. Other Ray clusters of this machine are neither joined nor ended.
    """
    from zephyr_ray.cluster import local_cluster

    local_cluster.up(local_cluster.state_folder())
    return 0


def down() -> int:
    """Ends the cluster of `zephyr-ray up`, and no other.

        zephyr-ray down

    Jobs that run on it end with it.
    """
    from zephyr_ray.cluster import local_cluster

    local_cluster.down(local_cluster.state_folder())
    return 0

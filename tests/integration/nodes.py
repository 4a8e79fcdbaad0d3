"""Ray's provider of worker nodes on one machine, with a folder for each node's runtime environments.

In a shared one every node that comes unpacks the job's working directory anew, under the feet of those that run in it.
"""

from typing import Any

from ray._private import ray_constants
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class Provider(FakeMultiNodeProvider):
    def _create_node_with_resources_and_labels(self, *node: Any) -> None:
        ray_constants.DEFAULT_RUNTIME_ENV_DIR_NAME = f"runtime_resources_{self._next_node_id + 1}"
        super()._create_node_with_resources_and_labels(*node)

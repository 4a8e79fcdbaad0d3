"""Ray clusters: connecting to one or starting one, the resources of a stage, worker processes and shared storage."""

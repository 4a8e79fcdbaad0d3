"""Computes log-probs of tokenized pairs by the frozen reference model, in <run.root>/reference_logps/data.

    python jobs/reference_logps.py --set preferences.train=FILE --set model.path=DIR_OR_HUB_ID

Killed half-way, the same command computes only the pairs that were in flight and those not begun.
"""

from zephyr_ray.cli.jobs import job

if __name__ == "__main__":
    job(__doc__, "reference_logps")

"""Trains a raw model on dialogues (dSFT), into <run.root>/sft/checkpoint.

    python jobs/sft.py --recipe RECIPE --set dialogues.train=FILE --set sft.base=DIR_OR_HUB_ID

An interrupted job goes on where it stopped.
"""

from zephyr_ray.cli.jobs import job

if __name__ == "__main__":
    job(__doc__, "sft")

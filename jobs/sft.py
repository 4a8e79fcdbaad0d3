"""Reads dialogues and a raw model -> a supervised model (dSFT), in <run.root>/sft/checkpoint.

python jobs/sft.py --recipe RECIPE --set dialogues.train=FILE --set sft.base=DIR_OR_HUB_ID
"""

from zephyr_ray.cli.jobs import job

if __name__ == "__main__":
    job(__doc__, "sft")

"""Reads preferences and a model's tokenizer -> tokenized pairs, in <run.root>/tokenized/data.

python jobs/tokenized.py --recipe RECIPE --set preferences.train=FILE --set model.path=DIR_OR_HUB_ID
"""

from zephyr_ray.cli.jobs import job

if __name__ == "__main__":
    job(__doc__, "tokenized")

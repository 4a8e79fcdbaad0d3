"""Tokenizes preference pairs with the model's tokenizer, into <run.root>/tokenized/data.

    python jobs/tokenized.py --recipe RECIPE --set preferences.train=FILE --set model.path=DIR_OR_HUB_ID

What is missing before it (preferences) is made first.
"""

from zephyr_ray.cli.jobs import job

if __name__ == "__main__":
    job(__doc__, "tokenized")

"""Aligns a model by ORPO on preferences, without a reference model, into <run.root>/orpo/checkpoint.

    python jobs/orpo.py --recipe recipes/tiny.yaml --recipe recipes/orpo.yaml
    python jobs/orpo.py --recipe RECIPE --set preferences.train=FILE --set model.path=DIR_OR_HUB_ID

It starts from model.path, which may be a raw model, or from the run's supervised one. What is missing before it is made
first; what is finished is skipped (docs/orpo.md).
"""

from zephyr_ray.cli.jobs import job

if __name__ == "__main__":
    job(__doc__, "orpo")

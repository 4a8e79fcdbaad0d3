"""Trains a model on the best of its own answers to each prompt, into <run.root>/rejection_sampling/checkpoint.

    python jobs/rejection_sampling.py --recipe recipes/tiny.yaml --recipe recipes/rejection_sampling.yaml
    python jobs/rejection_sampling.py --recipe RECIPE --set model.path=DIR_OR_HUB_ID

It starts from model.path, or from the run's supervised model. What is missing before it is made first; what is finished
is skipped. The stage best_answers tells what more answers to a prompt would buy (docs/rejection_sampling.md).
"""

from zephyr_ray.cli.jobs import job

if __name__ == "__main__":
    job(__doc__, "rejection_sampling")

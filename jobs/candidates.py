"""Samples candidates: the answers of a pool of models to each prompt, in <run.root>/candidates.

    python jobs/candidates.py --recipe recipes/tiny.yaml
    python jobs/candidates.py --recipe RECIPE --set prompts.train=FILE --set sampling.budget_usd=20

What is missing before it (prompts, a supervised model that answers) is made first. An interrupted job goes on where it
stopped, and no answer that was written is asked for again.
"""

from zephyr_ray.cli.jobs import job

if __name__ == "__main__":
    job(__doc__, "candidates")

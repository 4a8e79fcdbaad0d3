"""Judges candidates: every answer rated by the recipe's judges, with every raw reply, in <run.root>/judgments.

    python jobs/judgments.py --recipe recipes/tiny.yaml
    python jobs/judgments.py --recipe RECIPE --set judging.budget_usd=20

What is missing before it (prompts, candidates) is made first. An interrupted job goes on where it stopped, and no
judgment that was written is asked for again.
"""

from zephyr_ray.cli.jobs import job

if __name__ == "__main__":
    job(__doc__, "judgments")

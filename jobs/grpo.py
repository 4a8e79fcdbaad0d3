"""Aligns a model by GRPO on rewards of its own completions, into <run.root>/grpo/checkpoint.

    python jobs/grpo.py --recipe recipes/tiny.yaml --recipe recipes/grpo.yaml
    python jobs/grpo.py --recipe RECIPE --set prompts.train=FILE --set model.path=DIR_OR_HUB_ID

It starts from model.path, or from the run's supervised model. The recipe's judge rewards completions: a function, or a
reward model. What is missing before it is made first; what is finished is skipped (docs/grpo.md).
"""

from zephyr_ray.cli.jobs import job

if __name__ == "__main__":
    job(__doc__, "grpo")

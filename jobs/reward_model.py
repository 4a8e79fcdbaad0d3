"""Trains a reward model on preferences (Bradley-Terry), into <run.root>/reward_model/checkpoint.

    python jobs/reward_model.py --recipe recipes/tiny.yaml --recipe recipes/reward_model.yaml
    python jobs/reward_model.py --recipe RECIPE --set preferences.train=FILE --set model.path=DIR_OR_HUB_ID

It starts from model.path, or from the run's supervised model, with a new scalar head. What is missing before it is made
first; what is finished is skipped. With pairs in preferences.held_out it ends with how often it prefers their chosen
answers, and whether its confidence is right (docs/reward_model.md).
"""

from zephyr_ray.cli.jobs import job

if __name__ == "__main__":
    job(__doc__, "reward_model", "evaluation/reward_model")

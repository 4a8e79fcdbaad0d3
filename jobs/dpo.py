"""Aligns a supervised model by dDPO on preferences, into <run.root>/dpo/checkpoint.

    python jobs/dpo.py
    python jobs/dpo.py --recipe RECIPE --set preferences.train=FILE --set model.path=DIR_OR_HUB_ID
    python jobs/dpo.py --recipe RECIPE --set preferences.train=FILE --set preferences.held_out=OTHER_FILE
    ray job submit --address http://HEAD:8265 --working-dir . -- python jobs/dpo.py --set run.root=s3://BUCKET/RUN

What is missing before it (the supervised model of an `sft` section, preferences, tokenized rows, reference log-probs)
is made first; what is finished is skipped. With an `expo` section it makes the model beyond it too
(docs/expo.md). With pairs in preferences.held_out it ends with how often the model's implicit reward prefers their
chosen answers (docs/evaluation.md); with the embedded world, with a check of its answers.
"""

from zephyr_ray.cli.jobs import job

if __name__ == "__main__":
    job(__doc__, "dpo", "expo", evaluate=True)

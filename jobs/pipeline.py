"""Reads a recipe -> an aligned model: every stage of the way that the recipe needs, top to bottom.

    python jobs/pipeline.py --recipe recipes/tiny.yaml
    python jobs/pipeline.py --recipe RECIPE --until judgments
    python jobs/pipeline.py --recipe RECIPE --from preferences --set preferences.rejected=lowest
    python jobs/pipeline.py --recipe RECIPE --dry-run
    ray job submit --address http://HEAD:8265 --working-dir . -- python jobs/pipeline.py --set run.root=s3://BUCKET/RUN

A finished stage is skipped, an unfinished one goes on where it stopped, a stale one is made anew.
"""

from zephyr_ray.cli import job

ORDER = (
    "base",  # a raw model (embedded world only)
    "dialogues",  # what a teacher demonstrated
    "tokenized_dialogues",
    "sft",  # dSFT: the raw model learns from them
    "prompts",  # AI feedback: prompts,
    "candidates",  # several answers to each,
    "judgments",  # an AI's ratings of them,
    "preferences",  # and pairs: the best as y_w, a lower one as y_l
    "held_out_pairs",  # pairs that are not trained on (where preferences.held_out names some)
    "tokenized",
    "held_out_tokenized",
    "reference_logps",  # the frozen dSFT model on both answers, once
    "held_out_reference",
    "dpo",  # dDPO: from the dSFT model, on the pairs
    "held_out_policy",
    "evaluation/preferences",  # how often the implicit reward is right about the held-out pairs
    "held_out",  # what it was good for (embedded world only)
)

if __name__ == "__main__":
    job(__doc__, ("evaluation/preferences", "dpo", "held_out"), order=ORDER)

"""Has teachers make dialogues to learn from, in <run.root>/generated_dialogues, and reports how different they are, in
<run.root>/diversity/report.html (docs/generation.md).

    python jobs/generate_dialogues.py --recipe recipes/tiny.yaml --recipe recipes/generation.yaml
    python jobs/generate_dialogues.py --recipe RECIPE --set generation.seeds=FILE --set generation.budget_usd=20

What is missing before it (seeds, a supervised model that teaches) is made first. An interrupted job goes on where it
stopped, and no reply that was written is asked for again.
"""

from zephyr_ray.cli.jobs import job

if __name__ == "__main__":
    job(__doc__, "diversity")

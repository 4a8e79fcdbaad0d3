"""Aligns a model by KTO on answers of which each is desirable or not, into <run.root>/kto/checkpoint.

    python jobs/kto.py --recipe recipes/tiny.yaml --recipe recipes/kto.yaml
    python jobs/kto.py --recipe RECIPE --set preferences.train=FILE --set model.path=DIR_OR_HUB_ID

FILE may hold rows of prompt, completion and label, thumbs of the chat page, or pairs. It starts from model.path, or
from the run's supervised model. What is missing before it is made first; what is finished is skipped (docs/kto.md).
"""

from zephyr_ray.cli.jobs import job

if __name__ == "__main__":
    job(__doc__, "kto")

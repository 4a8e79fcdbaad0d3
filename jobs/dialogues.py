"""Cleans dialogues, as the recipe's steps say, into <run.root>/dialogues/data. It needs no model.

    python jobs/dialogues.py --recipe recipes/cleaning.yaml --set run.root=RUN --set dialogues.train=FILE
    python jobs/dialogues.py --recipe recipes/cleaning.yaml --set run.root=RUN --set dialogues.train=FILE \\
        --set 'dialogues.decontaminate=[BENCHMARK_FILE]'
    python jobs/dialogues.py --recipe RECIPE --set 'dialogues.select={n: 1000, by: length}'

What was left out lies in <run.root>/dialogues/dropped with the reason and the matching text, what was changed in
<run.root>/dialogues/changed (docs/cleaning.md). Where the recipe selects some of them, these lie in
<run.root>/selected_dialogues/data (docs/selection.md). An interrupted job goes on where it stopped.
"""

from zephyr_ray.cli.jobs import job

if __name__ == "__main__":
    job(__doc__, "dialogues", "selected_dialogues")

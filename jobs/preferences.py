"""Reads preference files in any known layout -> preferences, in <run.root>/preferences/data.

    python jobs/preferences.py --recipe recipes/tiny.yaml --set preferences.train=FILE

Ends with what the dataset doctor found: rows in, kept, and dropped by reason.
"""

from zephyr_ray.cli import job

if __name__ == "__main__":
    job(__doc__, ("preferences",))

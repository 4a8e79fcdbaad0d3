"""Makes preference pairs, of judgments or of files in any known layout, in <run.root>/preferences/data.

    python jobs/preferences.py --recipe RECIPE
    python jobs/preferences.py --recipe RECIPE --set preferences.train=FILE

Ends with rows in, kept, and dropped by reason, and with a report of them: report.html and report.png beside the data.
"""

from zephyr_ray.cli.jobs import job

if __name__ == "__main__":
    job(__doc__, "preferences")

"""Writes a run's report.html: alarms, evaluation, training curves, rows, data, samples, settings and cost.

    python jobs/report.py runs/tiny
    python jobs/report.py runs/first runs/second --out together

Several runs are shown side by side. A pipeline writes the report of its own run when it ends (docs/report.md).
"""

from zephyr_ray.cli.report import main

if __name__ == "__main__":
    main(__doc__)

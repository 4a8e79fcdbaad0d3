"""Makes an aligned model: every stage of the way that the recipe needs, top to bottom.

    python jobs/pipeline.py --recipe recipes/tiny.yaml
    python jobs/pipeline.py --recipe RECIPE --until judgments
    python jobs/pipeline.py --recipe RECIPE --from preferences
    python jobs/pipeline.py --recipe RECIPE --dry-run
    ray job submit --address http://HEAD:8265 --working-dir . -- python jobs/pipeline.py --set run.root=s3://BUCKET/RUN

A finished stage is skipped, and an unfinished one goes on where it stopped. A stale one is made anew only if
--overwrite names it; the old one is moved, not deleted.
"""

from zephyr_ray.cli.jobs import pipeline_job

if __name__ == "__main__":
    pipeline_job(__doc__)

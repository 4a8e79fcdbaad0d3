"""Submits a command to a Ray cluster, to run there in a copy of this repository.

    python jobs/submit.py --address http://127.0.0.1:8265 -- python jobs/dpo.py --recipe FILE --set run.root=s3://...

It is `zephyr-ray submit` with this repository as --working-dir.
"""

from pathlib import Path

from zephyr_ray.cli.app import main

if __name__ == "__main__":
    main("submit", "--working-dir", str(Path(__file__).resolve().parents[1]))

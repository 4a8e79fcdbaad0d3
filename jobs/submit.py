"""Submits a command to run on a Ray cluster in a copy of this repository: `zephyr-ray submit --working-dir .` of it.

python jobs/submit.py --address http://127.0.0.1:8265 -- python jobs/dpo.py --recipe FILE --set run.root=s3://...
"""

from pathlib import Path

from zephyr_ray.cli.app import main

if __name__ == "__main__":
    main("submit", "--working-dir", str(Path(__file__).resolve().parents[1]))

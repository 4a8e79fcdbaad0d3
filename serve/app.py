"""Serves chat models behind an OpenAI-compatible endpoint, with a chat page at /: `zephyr-ray serve` as a script.

python serve/app.py --run runs/tiny --open
python serve/app.py --model zephyr=HuggingFaceH4/zephyr-7b-beta --model mine=runs/mine/dpo/checkpoint --keys FILE
"""

from zephyr_ray.cli.app import main

if __name__ == "__main__":
    main("serve")

"""Serves chat models behind an OpenAI-compatible endpoint, with a chat page at /.

    python serve/app.py --run runs/tiny --open
    python serve/app.py --model zephyr=HuggingFaceH4/zephyr-7b-beta --model mine=runs/mine/dpo/checkpoint --keys FILE

It is `zephyr-ray serve`.
"""

from zephyr_ray.cli.app import main

if __name__ == "__main__":
    main("serve")

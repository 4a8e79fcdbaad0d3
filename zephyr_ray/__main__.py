"""`python -m zephyr_ray` is `zephyr-ray`."""

from zephyr_ray.cli.app import main

if __name__ == "__main__":
    main()

"""The command line: `zephyr-ray` with a file for each of its commands, and the jobs."""

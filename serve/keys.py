"""Makes an API key: prints it once and adds its hash to a file that the chat endpoint reads.

    python serve/keys.py keys.txt alice

Restart or redeploy the endpoint with `--keys keys.txt` for the key to be let in. Remove a key by deleting its line.
"""

from __future__ import annotations

import argparse
import os
import sys

from zephyr_ray.errors import UserError
from zephyr_ray.serving import keys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="file of hashes; made if it is not there, readable by you alone")
    parser.add_argument("name", help="whose key it is; appears in the access log")
    options = parser.parse_args()
    try:
        print(add(options.file, options.name))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def add(path: str, name: str) -> str:
    """Appends the hash of a new key and returns the key.

    Raises:
        UserError: The file is not one of ours or cannot be written, or the name has a line break.
    """
    if not name.strip() or not name.isprintable():
        raise UserError(f"a key's name is printable text, not {name!r}")
    if os.path.exists(path):
        keys.read_file(path)
    key = keys.new_key()
    try:
        with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8") as stream:
            stream.write(f"{keys.hash_key(key)} {name.strip()}\n")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    return key


if __name__ == "__main__":
    main()

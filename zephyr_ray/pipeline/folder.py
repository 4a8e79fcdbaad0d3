"""A folder on a disk or in a bucket, and the files in it."""

from __future__ import annotations

import json
import logging
import os
import posixpath
import secrets
import shutil
from typing import Any

import pyarrow.fs as pafs

_logger = logging.getLogger(__name__)


class Folder:
    """A folder that may not be there yet. Names are relative to it."""

    def __init__(self, filesystem: pafs.FileSystem, path: str):
        self.filesystem, self.path = filesystem, path

    def has_files(self, folder: str = "") -> bool:
        """Whether there is any file in the folder or below it."""
        path = posixpath.join(self.path, folder).rstrip("/")
        selector = pafs.FileSelector(path, allow_not_found=True, recursive=True)
        return any(info.type == pafs.FileType.File for info in self.filesystem.get_file_info(selector))

    def has_file(self, name: str) -> bool:
        return self.filesystem.get_file_info(posixpath.join(self.path, name)).type == pafs.FileType.File

    def read_json(self, name: str) -> Any:
        """The content of a JSON file of the folder, or None if there is no such file."""
        try:
            with self.filesystem.open_input_stream(posixpath.join(self.path, name)) as stream:
                return json.loads(stream.read())
        except (FileNotFoundError, NotADirectoryError):  # a root below a file is refused later, when it is written
            return None

    def names(self, folder: str = "") -> list[str]:
        """Names of what lies in the folder, or in one in it."""
        selector = pafs.FileSelector(posixpath.join(self.path, folder).rstrip("/"), allow_not_found=True)
        try:
            return [info.base_name for info in self.filesystem.get_file_info(selector)]
        except NotADirectoryError:  # a root below a file is refused later, when it is written
            return []

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of the files in a folder of it, by their names."""
        selector = pafs.FileSelector(posixpath.join(self.path, folder).rstrip("/"), allow_not_found=True)
        return {posixpath.join(folder, each.base_name): each.size for each in self.filesystem.get_file_info(selector)}

    def link(self, name: str, target: str) -> None:
        """Makes a name on a disk lead to another one, where it does not yet."""
        link = posixpath.join(self.path, name)
        is_local = isinstance(self.filesystem, pafs.LocalFileSystem)
        if not is_local or name == target or (os.path.islink(link) and os.readlink(link) == target):
            return
        partial = f"{link}.{secrets.token_hex(4)}"
        try:
            os.symlink(target, partial)
        except OSError as error:  # some network filesystems have none, and nothing but people reads them
            _logger.warning("%s cannot be linked to %s: %s", link, target, error)
            return
        if os.path.isdir(link) and not os.path.islink(link):  # of an earlier try without a lease
            shutil.rmtree(link)
        os.replace(partial, link)

    def delete(self, name: str) -> None:
        """Deletes a file or folder of the folder, if it is there."""
        filesystem, path = self.filesystem, posixpath.join(self.path, name)
        try:
            if filesystem.get_file_info(path).type == pafs.FileType.Directory:
                filesystem.delete_dir(path)
            else:
                filesystem.delete_file(path)
        except FileNotFoundError:  # another driver's
            return

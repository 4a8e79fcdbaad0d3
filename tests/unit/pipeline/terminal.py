"""A terminal: the far side of a pseudo-terminal, with what would stand on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
from types import TracebackType
from typing import TextIO

from rich.console import Console

_TOKEN = re.compile(r"\x1b\[(?P<arguments>[?0-9;]*)(?P<action>[A-Za-z])|(?P<character>.)", re.DOTALL)
_MARK = "\0"


class Terminal:
    """A terminal of so many columns and rows, which does what rich asks of one and refuses anything else."""

    def __init__(self, columns: int = 80, rows: int = 24):
        self._master, slave = pty.openpty()
        self.stream: TextIO = os.fdopen(slave, "w", buffering=1, encoding="utf-8")
        self.columns, self.rows = columns, rows
        self.lines, self.row, self.column = [""], 0, 0
        self.top = 0
        """The first line on the screen; those before it are the scrollback."""
        self.cursor_is_hidden = False
        self.resize(columns, rows)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stream.close()
        os.close(self._master)

    def console(self) -> Console:
        return Console(file=self.stream, highlight=False, soft_wrap=True, force_terminal=True)

    def resize(self, columns: int, rows: int) -> None:
        """As a terminal that breaks lines anew does: one that became too wide takes several rows."""
        self._break_lines(columns)
        self.columns, self.rows = columns, rows
        self.top = max(self.top, len(self.lines) - rows)
        self.tell_size(columns, rows)

    def tell_size(self, columns: int, rows: int) -> None:
        """What programs are told of its size."""
        fcntl.ioctl(self.stream.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def screen(self) -> list[str]:
        """What stands on the screen now."""
        self._read()
        return [line.rstrip() for line in self.lines[self.top :]]

    def everything(self) -> list[str]:
        """The scrollback too."""
        self._read()
        return [line.rstrip() for line in self.lines]

    def _break_lines(self, columns: int) -> None:
        found: list[str] = []
        for number, line in enumerate(self.lines):
            parts = [line[at : at + columns] for at in range(0, max(len(line), 1), columns)]
            found += parts
            if number == self.row:
                row, column = len(found) - 1, min(self.column, columns - 1)
        self.lines, self.row, self.column = found, row, column

    def _read(self) -> None:
        self.stream.flush()
        os.write(self.stream.fileno(), _MARK.encode())
        seen = b""
        while not seen.endswith(_MARK.encode()):
            seen += os.read(self._master, 65536)
        for token in _TOKEN.finditer(seen.decode().removesuffix(_MARK)):
            if token["action"]:
                self._act(token["action"], token["arguments"])
            else:
                self._put(token["character"])

    def _act(self, action: str, arguments: str) -> None:
        match action, arguments:
            case "A", number:
                self.row = max(self.top, self.row - int(number))
            case "K", "2":
                self.lines[self.row] = ""
            case "H", "":
                self.row, self.column = self.top, 0
            case "J", "2":
                self.lines[self.top :] = [""] * (len(self.lines) - self.top)
            case (("h" | "l"), "?25"):
                self.cursor_is_hidden = action == "l"
            case "m", _:
                pass
            case _:
                raise AssertionError(f"CSI {arguments}{action}")

    def _put(self, character: str) -> None:
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self._down()
        else:
            assert character.isprintable(), repr(character)
            if self.column == self.columns:
                self._down()
                self.column = 0
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
            self.column += 1

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append("")
        self.top = max(self.top, self.row - self.rows + 1)

"""Reads the Markdown of the repository -> a folder of pages for a site generator: `make docs`.

    python -m docs.pages build/docs

The site has docs/ at its top, and everything else where it lies in the repository. Two pages are made of the code
(`reference`), and what a page links to comes along, so that a link to what is not there is the generator's to refuse.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import sys
from pathlib import Path

from docs import reference

REPO = Path(__file__).resolve().parents[1]
OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "recipes/README.md")
"""Pages that do not lie in docs/."""
_LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")


def write(folder: Path) -> None:
    """All pages and what they link to, in place of whatever the folder held."""
    shutil.rmtree(folder, ignore_errors=True)
    made = {"recipe-fields.md": reference.recipe_fields(), "functions.md": reference.functions()}
    linked: set[str] = set()
    for name in (*OUTSIDE, *(f"docs/{path.name}" for path in sorted((REPO / "docs").glob("*.md")))):
        text = (REPO / name).read_text(encoding="utf-8")
        made[place_of(name)] = relinked(text, name)
        linked |= targets(text, name)
    for place, text in made.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text, encoding="utf-8")
    shutil.copy(REPO / "docs" / "site.css", folder)
    for name in linked - {name for name in linked if place_of(name) in made}:
        (folder / place_of(name)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / name, folder / place_of(name))


def place_of(name: str) -> str:
    """Where a file of the repository is on the site."""
    return "index.md" if name == "README.md" else name.removeprefix("docs/")


def targets(markdown: str, source: str) -> set[str]:
    """The files of the repository that a page links to, other pages among them."""
    return {name for link in _LINK.findall(markdown) if (REPO / (name := _resolved(link, source))).is_file()}


def relinked(markdown: str, source: str) -> str:
    """The page with its links as the site needs them. A link to what is not there stays as it is."""
    here = posixpath.dirname(place_of(source)) or "."

    def link(match: re.Match[str]) -> str:
        name = _resolved(match[1], source)
        return posixpath.relpath(place_of(name), here) if (REPO / name).is_file() else match[1]

    return _LINK.sub(link, markdown)


def _resolved(link: str, source: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


if __name__ == "__main__":
    write(Path(sys.argv[1]))

"""What a page of Markdown links to, and which anchors it has; for the site and for the tests of the pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
# [text](target) and ![text](target), but not those in `code`; and <img src="target">.
_LINK = re.compile(r"(`+[^`]*`+)|(\]\(|<img src=\")([^)\s\"]+)")
_HEADING = re.compile(r"^(#{1,6}) +(.+?)\s*$")


def lines_of(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each line, and whether it is code or begins or ends it."""
    fence = ""
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        yield line, bool(fence or mark)
        if not fence and mark:
            fence = mark[1]
        elif fence and mark and mark[1].startswith(fence):
            fence = ""


def with_links(text: str, changed: Callable[[str], str]) -> str:
    """Return the text with each link's target as the function returns it; code stays as it is."""

    def one(found: re.Match[str]) -> str:
        code, before, target = found.groups()
        return code if code else f"{before}{changed(target)}"

    return "".join(line if is_code else _LINK.sub(one, line) for line, is_code in lines_of(text))


def links(text: str) -> list[str]:
    """Return the targets of all links."""
    found: list[str] = []
    with_links(text, lambda target: found.append(target) or target)  # type: ignore[func-returns-value]
    return found


def headings(text: str) -> list[tuple[int, str]]:
    """Return level and words of each heading."""
    found = (_HEADING.match(line) for line, is_code in lines_of(text) if not is_code)
    return [(len(heading[1]), heading[2]) for heading in found if heading]


def anchors(text: str) -> set[str]:
    """Return the anchors of a page, as GitHub makes them of its headings."""
    found: set[str] = set()
    for _, words in headings(text):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", words).replace("`", "").lower()
        name = wanted = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while name in found:
            number += 1
            name = f"{wanted}-{number}"
        found.add(name)
    return found

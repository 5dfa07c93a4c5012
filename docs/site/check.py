"""Looks whether the links of a site lead to pages and anchors that are there. Links to elsewhere aren't asked."""

import pathlib
import urllib.parse
from html.parser import HTMLParser


class Page(HTMLParser):
    """What a page links to, and what of it can be linked to."""

    def __init__(self, file: pathlib.Path) -> None:
        super().__init__()
        self.links, self.anchors = set(), set()
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attributes) -> None:
        for name, value in attributes:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif name in ("href", "src", "srcset") and value is not None:
                self.links.add(value)


def check(site: pathlib.Path) -> list[str]:
    """All that is wrong."""
    pages = {file: Page(file) for file in sorted(site.glob("**/*.html"))}
    if len(pages) < 30:
        return [f"{site} has {len(pages)} pages only"]
    wrong = []
    for file, page in pages.items():
        for link in sorted(page.links):
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc or file.name == "404.html":
                continue
            to = file if not parts.path else (file.parent / urllib.parse.unquote(parts.path)).resolve()
            if to.is_dir():
                to /= "index.html"
            if not to.is_relative_to(site.resolve()) and not to.is_relative_to(site) or not to.is_file():
                wrong.append(f"{file.relative_to(site)}: {link}: there is no such page")
            elif parts.fragment and to in pages and urllib.parse.unquote(parts.fragment) not in pages[to].anchors:
                wrong.append(f"{file.relative_to(site)}: {link}: there is no such heading")
    return wrong

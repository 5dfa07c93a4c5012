"""Puts documents, what they show and examples into the package, with links that lead to where things are there.

    packaging/debian/docs.py DIRECTORY

What a link leads to and the package hasn't stays as words. An image that it hasn't is an error.
"""

import glob
import os
import re
import shutil
import sys

PAGES = ["README.md", "CHANGELOG.md", "KERNELS.md", "SECURITY.md", "examples/README.md"]
EXAMPLES = ["packaging/flowpin.toml", "packaging/flowpin.schema.json", "packaging/alerts.yml", "packaging/grafana.json"]

LINK = re.compile(r"(!?)\[([^\[\]]*)\]\(([^()\s#]+)(#[^()\s]*)?\)")
SHOWN = re.compile(r'(src|srcset)="([^"]+)"')


def places() -> dict[str, str]:
    """Where each file of the sources is in the package."""
    docs = [name for kind in ("*.md", "migration/*.md", "images/*", "media/*") for name in glob.glob(f"docs/{kind}")]
    results = glob.glob("benches/results/*.md") + glob.glob("benches/results/*.svg")
    found = {name: name.removeprefix("docs/").removeprefix("benches/") for name in PAGES + docs + results}
    found |= {name: f"examples/{os.path.basename(name)}" for name in EXAMPLES + glob.glob("examples/*.toml")}
    taken: dict[str, str] = {}
    for name, place in sorted(found.items()):
        if place in taken:
            sys.exit(f"docs: {name} and {taken[place]} are both to be {place}; rename one")
        taken[place] = name
    return found


def rewritten(name: str, text: str, found: dict[str, str]) -> str:
    """A page with links as they are in the package."""

    def there(target: str) -> str | None:
        meant = os.path.normpath(os.path.join(os.path.dirname(name), target))
        place = found.get(meant)
        return place and os.path.relpath(place, os.path.dirname(found[name]) or ".")

    def link(match: re.Match[str]) -> str:
        shown, words, target, part = match.groups()
        if "://" in target or target.startswith("mailto:"):
            return match.group()
        place = there(target)
        if place is None and shown:
            sys.exit(f"docs: {name} shows {target}, which the package hasn't")
        return words if place is None else f"{shown}[{words}]({place}{part or ''})"

    def image(match: re.Match[str]) -> str:
        attribute, target = match.groups()
        place = there(target)
        if place is None:
            sys.exit(f"docs: {name} shows {target}, which the package hasn't")
        return f'{attribute}="{place}"'

    return SHOWN.sub(image, LINK.sub(link, text))


def main() -> None:
    directory = sys.argv[1]
    found = places()
    for name, place in found.items():
        path = os.path.join(directory, place)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if name.endswith(".md"):
            with open(name, encoding="utf-8") as source, open(path, "w", encoding="utf-8") as page:
                page.write(rewritten(name, source.read(), found))
        else:
            shutil.copyfile(name, path)
        os.chmod(path, 0o644)


main()

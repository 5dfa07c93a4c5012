"""Puts the pages of the repository where the site's builder finds them, with links that lead there as well.

Pages link to each other and to files as they lie in the repository, so that they can be read there. What is no page of the site is copied
beside them, below "files".
"""

import os
import pathlib
import re
import shutil
import tomllib

# Pages outside of docs, and where they are on the site.
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "project/architecture.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "KERNELS.md": "project/kernels.md",
    "SECURITY.md": "project/security.md",
    "benches/results/results.md": "results/results.md",
    "examples/README.md": "examples/index.md",
    "lb-ebpf/budget.md": "project/budget.md",
    "tests/kubernetes/README.md": "project/cluster-tests.md",
}

# [text](target), ![text](target), src="target", srcset="target"; and what comes before the target.
LINK = re.compile(r"""(\]\(|\bsrc=\"|\bsrcset=\")([^)\"\s]+)""")
ELSEWHERE = ("http://", "https://", "mailto:", "#")
FENCE = re.compile(r"^\s*```")


def sources(root: pathlib.Path) -> dict[str, str]:
    """Pages by their path in the repository: their path on the site."""
    docs = {p.relative_to(root).as_posix(): p.relative_to(root / "docs").as_posix() for p in root.glob("docs/**/*.md")}
    return {**docs, **PAGES}


def stage(root: pathlib.Path, out: pathlib.Path) -> list[str]:
    """Writes all pages. Returns what is wrong with their links."""
    pages, wrong = sources(root), []
    for source, place in pages.items():
        text = (root / source).read_text()
        lines, fenced = [], False
        for line in text.split("\n"):
            fenced ^= bool(FENCE.match(line))
            if not fenced and not line.startswith("    "):
                line = LINK.sub(lambda m: m[1] + target(root, pages, source, m[2], out, wrong), line)
            lines.append(line)
        page = out / place
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("\n".join(lines))
    return wrong


def target(root, pages, source: str, link: str, out: pathlib.Path, wrong: list[str]) -> str:
    """Where a link of a page leads on the site."""
    if link.startswith(ELSEWHERE):
        return link
    path, _, anchor = link.partition("#")
    file = (root / source).parent.joinpath(path).resolve()
    if not file.is_relative_to(root) or not file.is_file():
        wrong.append(f"{source}: {link}: there is no such file")
        return link
    name = file.relative_to(root).as_posix()
    place = pages.get(name)
    if place is None:
        place = f"files/{name}" if file.suffix not in (".png", ".svg") else f"images/{file.name}"
        # A text without a known ending is shown, not kept, if it has one.
        place += "" if file.suffix else ".txt"
        (out / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, out / place)
    near = os.path.relpath(place, pathlib.PurePosixPath(pages[source]).parent)
    return near + (f"#{anchor}" if anchor else "")


def missing_in_nav(config: pathlib.Path, pages: pathlib.Path) -> list[str]:
    """Pages that the menu doesn't have, and entries of it without a page."""
    listed = set(entries(tomllib.loads(config.read_text())["project"]["nav"]))
    there = {page.relative_to(pages).as_posix() for page in pages.glob("**/*.md") if "files" not in page.parts}
    return [f"zensical.toml: nav has no {page}" for page in sorted(there - listed)] + [
        f"zensical.toml: there is no page {page}" for page in sorted(listed - there)
    ]


def entries(nav) -> list[str]:
    """Pages of a menu."""
    if isinstance(nav, str):
        return [nav]
    values = nav.values() if isinstance(nav, dict) else nav
    return [page for value in values for page in entries(value)]

"""Builds the documentation as a site: target/docs/site. Called by scripts/docs."""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys

import check
import reference
import stage

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = ROOT / "target" / "docs"


def build(binary: pathlib.Path) -> list[str]:
    """Builds the site. Returns what is wrong with it."""
    shutil.rmtree(TARGET, ignore_errors=True)
    pages = TARGET / "pages"
    pages.mkdir(parents=True)
    wrong = stage.stage(ROOT, pages)
    reference.write(ROOT, pages / "reference", binary)
    shutil.copy(ROOT / "docs" / "site" / "zensical.toml", TARGET)
    wrong += stage.missing_in_nav(TARGET / "zensical.toml", pages)
    zensical = pathlib.Path(sys.executable).with_name("zensical")
    command = [zensical, "build", "--clean", "--strict"]
    ran = subprocess.run(command, cwd=TARGET, capture_output=True, text=True)
    # Colours are taken off, and what Python says of the exit.
    said = re.sub(r"\x1b\[[0-9;]*m", "", ran.stdout + ran.stderr.partition("Traceback")[0])
    if ran.returncode != 0 or "warning" in said.lower():
        return [*wrong, f"zensical, exit code {ran.returncode}: {said.strip()}"]
    return wrong + check.check(TARGET / "site")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=pathlib.Path, required=True, help="flowpin, whose help is printed")
    wrong = build(parser.parse_args().binary.resolve())
    for line in wrong:
        print(f"docs: {line}", file=sys.stderr)
    if wrong:
        sys.exit(1)
    print(f"docs: {TARGET / 'site' / 'index.html'}")


if __name__ == "__main__":
    main()

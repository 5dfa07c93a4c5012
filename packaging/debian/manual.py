"""Prints flowpin.toml(5), from the schema of the config file."""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs/site"))

import reference  # noqa: E402, the site's; not a package


def plain(text: str) -> str:
    """Text for roff. What would begin a request or an escape doesn't."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text)


def words(text: str) -> str:
    """A description. Names that documentation of the code links, and code, are bold."""
    text = re.sub(r"\[(`[^`]*`)\](\([^)]*\))?", r"\1", text).replace("`None`", "Left out")
    parts = " ".join(text.split()).split("`")
    return "".join(f"\\fB{plain(part)}\\fR" if n % 2 else plain(part) for n, part in enumerate(parts))


def page(schema: dict, example: str, version: str) -> str:
    known = schema["$defs"]
    link = lambda name: f"table {reference.HEADINGS[name]}"
    out = [
        f'.TH FLOWPIN.TOML 5 "" "Flowpin {version}" Flowpin',
        ".SH NAME",
        "flowpin.toml \\- configuration of the Flowpin agent",
        ".SH DESCRIPTION",
        "The file is TOML. "
        + words(
            "`flowpin check --config` says what is wrong with one, and what it would set up. `flowpin agent` reads it when it starts and "
            "at SIGHUP. What is left out has its default. A duration is text like `15h` or `1m 30s`, or a number of seconds."
        ),
    ]
    for name, heading in reference.HEADINGS.items():
        one = known[name]
        about = one.get("description", "")
        # Of some it is the heading.
        out += [f".SH {plain(heading)}", words("" if heading in about else about)]
        for key, value in one["properties"].items():
            text = words(value.get("description", ""))
            if value.get("default") not in (None, [], {}) and "efault" not in text:
                text += f" Default: \\fB{plain(json.dumps(value['default']))}\\fR."
            if key in one.get("required", []):
                text += " Required."
            text += "".join(f" {words(meaning)}" for meaning in reference.meanings(value, known))
            out += [".TP", f"\\fB{plain(key)}\\fR: {words(reference.kind(value, known, link))}", text]
    lines = [plain(line) for line in example.rstrip().splitlines() if not line.startswith("#:")]
    out += [".SH EXAMPLE", ".nf", *lines, ".fi", ".SH FILES", "/etc/flowpin/flowpin.toml", ".SH SEE ALSO", "flowpin(1), flowpin\\-check(1)"]
    return "\n".join(line for line in out if line) + "\n"


packaging = ROOT / "packaging"
print(page(json.loads((packaging / "flowpin.schema.json").read_text()), (packaging / "flowpin.toml").read_text(), sys.argv[1]), end="")

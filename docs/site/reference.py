"""The references, from what the binary and the files in packaging say of themselves."""

import json
import pathlib
import re
import subprocess


def write(root: pathlib.Path, out: pathlib.Path, binary: pathlib.Path) -> None:
    """Writes them."""
    packaging = root / "packaging"
    load = lambda name: json.loads((packaging / name).read_text())
    out.mkdir(exist_ok=True)
    (out / "config.md").write_text(config(load("flowpin.schema.json"), (packaging / "flowpin.toml").read_text()))
    (out / "cli.md").write_text(cli(binary))
    (out / "api.md").write_text(api(load("openapi.json")))
    (out / "metrics.md").write_text(metrics(load("metrics.json")))


def cell(text: str) -> str:
    """A text as a cell of a table. Names that documentation of the code links are plain code here."""
    text = re.sub(r"\[(`[^`]*`)\](\([^)]*\))?", r"\1", text).replace("`None`", "Left out")
    text = " ".join(text.split()).replace("|", "\\|")
    # What isn't code is no HTML either.
    parts = text.split("`")
    return "`".join(part if n % 2 else part.replace("<", "&lt;") for n, part in enumerate(parts))


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"


def named(schema: dict) -> str | None:
    """The name that a schema refers to, itself or by one of its choices."""
    for part in [schema, schema.get("items") or {}, *schema.get("anyOf", []), *schema.get("allOf", [])]:
        if isinstance(part, dict) and "$ref" in part:
            return part["$ref"].rsplit("/", 1)[1]
    return None


def kind(schema: dict, known: dict, link) -> str:
    """A schema's type, for people."""
    if schema is True or not schema:
        return "anything"
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return link(name) if "properties" in known[name] else kind(known[name], known, link)
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema["enum"] if value is not None)
    for choice in ("oneOf", "anyOf"):
        if choice in schema:
            kinds = [kind(one, known, link) for one in schema[choice] if one.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
    if "allOf" in schema:
        return kind(schema["allOf"][0], known, link)
    types = schema.get("type", "anything")
    types = [t for t in ([types] if isinstance(types, str) else types) if t != "null"]
    words = {"integer": "number", "boolean": "true or false", "string": "text", "object": "table"}
    if types == ["array"]:
        return f"list of {kind(schema.get('items', True), known, link)}"
    return " or ".join(words.get(t, t) for t in types)


# --- The config file

# Where a table's keys stand in the file, and what else is in it.
HEADINGS = {
    "RawAgent": "[agent]",
    "RawConntrack": "[conntrack]",
    "RawInterface": "[[interface]]",
    "SocketSpec": "[sockets]",
    "RawSnat": "[snat]",
    "RawCluster": "[cluster]",
    "RawKubernetes": "[kubernetes]",
    "RawLog": "[log]",
    "ServiceDecl": "[[service]]",
    "FrontendDecl": "[[service.frontend]]",
    "BackendDecl": "[[service.backend]]",
    "ForwardBySource": "forward",
    "AffinityDecl": "affinity",
    "TimeoutsDecl": "timeouts",
    "HealthDecl": "health",
    "StepDecl": "health.talk",
    "RebalanceDecl": "rebalance",
    "RemovalWithin": "on_removal",
}


def config(schema: dict, example: str) -> str:
    known = schema["$defs"]
    left = [name for name, one in known.items() if "properties" in one and name not in HEADINGS]
    assert not left, f"reference.py: HEADINGS has no {left}"
    link = lambda name: f"[{HEADINGS[name].strip('[]')}](#{anchor(HEADINGS[name])})"
    out = [
        "# Config file",
        "From the schema that `flowpin check --schema` prints. A duration is text like `15h` or `1m 30s`, or a number of seconds. What is "
        "left out has its default.",
    ]
    for name, heading in HEADINGS.items():
        one = known[name]
        required = one.get("required", [])
        rows = []
        for key, value in one["properties"].items():
            text = cell(value.get("description", ""))
            if value.get("default") not in (None, [], {}) and "efault" not in text:
                text += f" Default: `{json.dumps(value['default'])}`."
            if key in required:
                text += " Required."
            text += "".join(f" {words}" for words in meanings(value, known))
            rows.append([f"`{key}`", kind(value, known, link), text])
        about = cell(one.get("description", ""))
        # Of some it is the heading.
        out += [f"## {heading}", about if heading not in about else "", table(["key", "type", "what"], rows).rstrip()]
    out += ["## Every key, as a file", "```toml\n" + example.rstrip() + "\n```"]
    return "\n\n".join(part for part in out if part) + "\n"


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-")


def meanings(schema: dict, known: dict):
    """What each word means that a key may have, where it is said."""
    choices = known.get(named(schema), {}).get("oneOf", [])
    return [f"`{one['const']}`: {cell(one.get('description', ''))}" for one in choices if "const" in one]


# --- The command line

COMMAND = re.compile(r"^  ([a-z][a-z-]*)(?:  |$)", re.M)


def cli(binary: pathlib.Path) -> str:
    out = ["# Command line", "What `--help` prints of every command."]
    todo = [[]]
    while todo:
        words = todo.pop(0)
        text = help_of(binary, words)
        out += ["## " + " ".join(["flowpin", *words]), "```text\n" + text.rstrip() + "\n```"]
        listed = re.search(r"^Commands:\n((?:  .*\n)+)", text, re.M)
        names = [name for name in COMMAND.findall(listed[1]) if name != "help"] if listed else []
        todo = [[*words, name] for name in names] + todo
    return "\n\n".join(out) + "\n"


def help_of(binary: pathlib.Path, words: list[str]) -> str:
    ran = subprocess.run([binary, *words, "--help"], capture_output=True, text=True, check=True, env={"COLUMNS": "100"})
    return ran.stdout


# --- The API


def api(document: dict) -> str:
    known = document["components"]["schemas"]
    link = lambda name: f"[{name}](#{name.lower()})"
    out = [
        "# API",
        "HTTP/JSON on the agent's Unix socket, `/run/flowpin/api.sock`. From the document at `/v1/openapi.json` (OpenAPI "
        f"{document['openapi']}), which code can be made from. A refusal is one sentence, in [ErrorView](#errorview). Durations are "
        "seconds; where they are asked for, text like `15h` will do.",
        "```sh\ncurl --unix-socket /run/flowpin/api.sock http://flowpin/v1/services\n```",
        "Figures as text at `/metrics`: [metrics](metrics.md).",
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            out += operation_of(path, method, operation, known, link)
    out.append("## Types")
    for name, one in sorted(known.items()):
        out += [f"### {name}", cell(one.get("description", ""))]
        if "properties" in one:
            required = one.get("required", [])
            rows = [
                [f"`{key}`", kind(value, known, link), cell(value.get("description", "")) if isinstance(value, dict) else "",
                 "yes" if key in required else ""]
                for key, value in one["properties"].items()
            ]
            out.append(table(["field", "type", "what", "always there"], rows))
        else:
            out.append(kind(one, known, link))
    return "\n\n".join(part for part in out if part) + "\n"


def operation_of(path: str, method: str, operation: dict, known: dict, link) -> list[str]:
    out = [f"## {method.upper()} {path}", cell(operation["summary"])]
    parameters = [
        [f"`{one['name']}`", one["in"], kind(one["schema"], known, link), cell(one["schema"].get("description", ""))]
        for one in operation.get("parameters", [])
    ]
    if parameters:
        out.append(table(["parameter", "in", "type", "what"], parameters))
    body = operation.get("requestBody", {}).get("content", {})
    for media, content in body.items():
        out.append(f"Body, `{media}`: {kind(content['schema'], known, link)}.")
    for status, answer in operation["responses"].items():
        if status == "default":
            continue
        content = answer.get("content", {})
        kinds = [f"`{media}`: {kind(one['schema'], known, link)}" for media, one in content.items()]
        out.append(f"Answer {status}: {', '.join(kinds) or 'nothing'}.")
    return out


# --- Metrics


def metrics(known: list[dict]) -> str:
    out = [
        "# Metrics",
        "Every metric of the page at `http://127.0.0.1:9479/metrics`, in the format of OpenMetrics. [What to watch](../metrics.md). Those "
        "of `kubeproxy_`, `rest_client_`, `process_` and `flowpin_kubernetes_` are there with `[kubernetes]`, those of `flowpin_cluster_` "
        "with `[cluster]`. A histogram has `_bucket` (with `le`), `_sum` and `_count`.",
    ]
    rows = [
        [f"`{one['name']}`", one["kind"], ", ".join(f"`{label}`" for label in one["labels"]), cell(one["help"])] for one in known
    ]
    out.append(table(["name", "kind", "labels", "what"], rows))
    return "\n\n".join(out) + "\n"

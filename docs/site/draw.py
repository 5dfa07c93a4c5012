"""Draws frames of a terminal: an SVG that moves by CSS alone, and escape sequences."""

import html
import typing

# A cell, and what is around all of them, in pixels. README pages are about 840 pixels wide.
CELL, LINE, MARGIN = 8, 17, 12
FONT = 13.3
# By name of the terminal's colour: on light and on dark ground.
COLOURS = {
    "default": ("#24292f", "#d6dbe1"),
    "title": ("#6e7781", "#8b949e"),
    "ground": ("#f6f8fa", "#161b22"),
    "red": ("#cf222e", "#ff7b72"),
    "green": ("#1a7f37", "#56d364"),
    "brown": ("#bf8700", "#e3b341"),
    "cyan": ("#1b7c83", "#39c5cf"),
}
# The same colours as programs name them by a number.
NUMBERED = {"cd0000": "red", "00cd00": "green", "cdcd00": "brown", "00cdcd": "cyan"}
CODES = {"red": 31, "green": 32, "brown": 33, "cyan": 36, "title": 90}


class Run(typing.NamedTuple):
    """Characters of one look, beside each other."""

    x: int
    text: str
    colour: str
    look: str = ""


def runs(row, width: int) -> list[Run]:
    """What is in a row of a pyte screen. Blanks that show nothing are left out."""
    found = []
    for x in range(width):
        char = row[x]
        if char.data == "":
            continue
        looks = {"bold": char.bold, "reverse": char.reverse, "underline": char.underscore}
        look = " ".join(name for name, is_so in looks.items() if is_so)
        if char.data == " " and not (char.reverse or char.underscore):
            # A single blank between words goes with them; it is not known yet whether there is a further word.
            last = found[-1] if found else Run(0, " ", "")
            plain = "reverse" not in last.look and "underline" not in last.look
            if plain and last.x + len(last.text) == x and last.text[-1] not in " █":
                found[-1] = last._replace(text=last.text + " ")
            continue
        last = found[-1] if found else None
        colour = NUMBERED.get(char.fg, char.fg)
        same = last and last.x + len(last.text) == x and (last.colour, last.look) == (colour, look)
        if same and ("█" in last.text) == (char.data == "█"):
            found[-1] = last._replace(text=last.text + char.data)
        else:
            found.append(Run(x, char.data, colour, look))
    seen = lambda run: "reverse" in run.look or "underline" in run.look
    kept = [run if seen(run) else run._replace(text=run.text.rstrip()) for run in found]
    return [run for run in kept if run.text]


def escaped(row: list[Run]) -> str:
    """The row as a terminal is told it."""
    text = ""
    for run in row:
        looks = {"bold": 1, "underline": 4, "reverse": 7}
        codes = [looks[look] for look in run.look.split() if look in looks]
        codes += [CODES[name] for name in (run.colour, run.look) if name in CODES]
        text += f"\x1b[{run.x + 1}G\x1b[{';'.join(map(str, [0, *codes]))}m{run.text}"
    return text + "\x1b[0m"


def svg(frames: list[tuple[float, list[list[Run]]]], width: int, hold: float) -> str:
    """All frames beside each other, of which one is seen at a time. A row that is seen often is written once."""
    known: dict[tuple[Run, ...], str] = {}
    rows_of = lambda rows: [(y, known.setdefault(tuple(row), f"r{len(known)}")) for y, row in enumerate(rows) if row]
    strip, stops = [], []
    lasts = frames[-1][0] + hold
    wide, high = width * CELL + 2 * MARGIN, len(frames[0][1]) * LINE + 2 * MARGIN
    for n, (at, rows) in enumerate(frames):
        uses = "".join(f'<use href="#{name}" y="{y * LINE}"/>' for y, name in rows_of(rows))
        strip.append(f'<g transform="translate({n * wide})">{uses}</g>')
        stops.append(f"{at / lasts * 100:.2f}%{{transform:translateX({-n * wide}px)}}")
    stops[0] = stops[0].replace(stops[0].split("%")[0], "0", 1)
    stops.append(f"to{{transform:translateX({-(len(frames) - 1) * wide}px)}}")
    rows = "\n".join(f'<g id="{name}">{"".join(map(cells, row))}</g>' for row, name in known.items())
    colours = lambda n: "".join(f"--{name}:{pair[n]};" for name, pair in COLOURS.items())
    fills = "".join(f".{name}{{fill:var(--{name})}}" for name in COLOURS)
    style = f"""
svg{{{colours(0)}}}
@media (prefers-color-scheme:dark){{svg{{{colours(1)}}}}}
text{{font:{FONT}px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre}}
{fills}.bold{{font-weight:bold}}.underline{{text-decoration:underline}}
#strip{{animation:play {lasts:.1f}s step-end infinite}}
@keyframes play{{{"".join(stops)}}}
"""
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}">
<title>flowpin demo, with flowpin top and flowpin events -f</title>
<style>{style}</style>
<defs>
{rows}
</defs>
<rect width="100%" height="100%" rx="6" class="ground"/>
<svg x="{MARGIN}" y="{MARGIN}" width="{width * CELL}" height="{high - 2 * MARGIN}"><g id="strip">
{chr(10).join(strip)}
</g></svg>
</svg>
"""


def cells(run: Run) -> str:
    """A run at its place in a row. Bars are drawn, so that no font has gaps in them."""
    x, wide = run.x * CELL, len(run.text) * CELL
    colour = "title" if run.look == "title" else run.colour if run.colour in COLOURS else "default"
    if set(run.text) == {"█"}:
        return f'<rect x="{x}" y="3" width="{wide}" height="{LINE - 4}" class="{colour}"/>'
    if set(run.text) == {"─"}:
        return f'<rect x="{x}" y="{LINE // 2}" width="{wide}" height="1" class="{colour}"/>'
    back = ""
    if "reverse" in run.look:
        back, colour = f'<rect x="{x}" width="{wide}" height="{LINE}" class="{colour}"/>', "ground"
    kind = " ".join([colour, *(look for look in run.look.split() if look in ("bold", "underline"))])
    text = html.escape(run.text, quote=False)
    return f'{back}<text x="{x}" y="{LINE - 4}" textLength="{wide}" class="{kind}">{text}</text>'

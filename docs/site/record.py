"""Records `flowpin demo`, with `flowpin top` and `flowpin events -f` beside it: demo.cast (asciinema) and demo.svg.

Called by scripts/record. Each program has a pseudo-terminal of its own; what is recorded is one terminal with the three
below each other, as a terminal multiplexer shows them.
"""

import argparse
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import draw
import pyte

MEDIA = pathlib.Path(__file__).resolve().parents[1] / "media"
WIDTH = 108
# Seconds between two looks, and for which the end is shown.
LOOK, HOLD = 0.1, 4
# By what the last step is known.
LAST = "rounds of data"
# How long all of it may take, in seconds.
LIMIT = 120


class Pane:
    """A program in a terminal of its own, and its screen."""

    def __init__(self, height: int, *command: str):
        self.height, self.command = height, command
        self.title = "# " + " ".join([pathlib.Path(command[0]).name, *command[1:]])
        self.fd = self.pid = None
        self.clear()

    def clear(self) -> None:
        self.screen = pyte.Screen(WIDTH, self.height)
        self.stream = pyte.ByteStream(self.screen)

    def start(self, environment: dict[str, str]) -> None:
        self.clear()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            # The size is there before anybody asks for it.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", self.height, WIDTH, 0, 0))
            os.execve(self.command[0], self.command, {**environment, "TERM": "xterm-256color"})

    def read(self) -> None:
        """Takes what the program has written. Where there is no more, it has ended."""
        try:
            said = os.read(self.fd, 65536)
        except OSError:
            said = b""
        if said:
            self.stream.feed(said)
        else:
            self.ended()

    def ended(self) -> int:
        os.close(self.fd)
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.fd = self.pid = None
        return self.code

    def end(self) -> None:
        if self.pid is not None:
            os.kill(self.pid, signal.SIGTERM)
            self.ended()


class Recording:
    """The panes below each other, as frames: when, and the rows that are seen from then on."""

    def __init__(self, panes: list[Pane]):
        self.panes, self.frames, self.began = panes, [], time.monotonic()

    def look(self) -> None:
        rows = []
        for pane in self.panes:
            rows.append([draw.Run(0, f"── {pane.title} ".ljust(WIDTH, "─"), "default", "title")])
            rows += [draw.runs(pane.screen.buffer[y], WIDTH) for y in range(pane.height)]
        if not self.frames or self.frames[-1][1] != rows:
            self.frames.append((time.monotonic() - self.began, rows))

    def cast(self) -> str:
        """As a file of asciinema, version 2: a header, then what a terminal is sent, and when."""
        height = len(self.frames[0][1])
        lines = [{"version": 2, "width": WIDTH, "height": height, "title": "flowpin demo"}]
        shown = [None] * height
        for at, rows in self.frames:
            sent = "" if lines[1:] else "\x1b[?25l\x1b[2J"
            for y, row in enumerate(rows):
                if row != shown[y]:
                    sent += f"\x1b[{y + 1};1H\x1b[2K{draw.escaped(row)}"
            shown = rows
            lines.append([round(at, 2), "o", sent])
        lines.append([round(self.frames[-1][0] + HOLD, 2), "o", "\x1b[?25h"])
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def answers(binary: str, environment: dict[str, str]) -> bool:
    ran = subprocess.run([binary, "status"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return ran.returncode == 0


def record(binary: str) -> Recording:
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    demo, watching = Pane(25, binary, "demo"), [Pane(10, binary, "top"), Pane(5, binary, "events", "-f")]
    recording = Recording([demo, *watching])
    demo.start(environment)
    while demo.fd is not None:
        open_ = [pane for pane in recording.panes if pane.fd is not None]
        due = time.monotonic() + LOOK
        while (left := due - time.monotonic()) > 0:
            ready = select.select([pane.fd for pane in open_ if pane.fd is not None], [], [], left)[0]
            for pane in open_:
                if pane.fd in ready:
                    pane.read()
        recording.look()
        if time.monotonic() - recording.began > LIMIT:
            demo.end()
            raise SystemExit(f"record: the demo takes longer than {LIMIT} s")
        said = "\n".join(demo.screen.display)
        if found := re.search(r"FLOWPIN_API_SOCKET=(\S+)", said):
            environment["FLOWPIN_API_SOCKET"] = found[1]
        if LAST in said:
            # Before their agent goes: what they show stays.
            for pane in watching:
                pane.end()
            continue
        # They end with the agent that the demo kills, and are started again when there is the next.
        away = [pane for pane in watching if pane.fd is None]
        if away and "FLOWPIN_API_SOCKET" in environment and answers(binary, environment):
            for pane in away:
                pane.start(environment)
    for pane in watching:
        pane.end()
    if demo.code != 0:
        raise SystemExit("record: the demo failed:\n" + "\n".join(demo.screen.display).rstrip())
    return recording


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=pathlib.Path, required=True, help="flowpin")
    recording = record(str(parser.parse_args().binary.resolve()))
    MEDIA.mkdir(exist_ok=True)
    for name, text in [("demo.cast", recording.cast()), ("demo.svg", draw.svg(recording.frames, WIDTH, HOLD))]:
        (MEDIA / name).write_text(text)
        print(f"record: {MEDIA / name}: {len(text.encode()) / 1024:.0f} KiB", file=sys.stderr)


if __name__ == "__main__":
    main()

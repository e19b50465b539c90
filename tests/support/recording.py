"""A recording of a command in a terminal, as an animated SVG image that shows its lines when they came.

Usage: python -m tests.support.recording FILE.svg COMMAND [ARGUMENT ...]
"""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

from rich.console import Console
from rich.segment import Segment
from rich.text import Text

COLUMNS, LONGEST = 150, 12.0  # characters a line; seconds, to which a longer recording is shortened
_CONSOLE = Console(width=COLUMNS, color_system="truecolor")
WIDTH, HEIGHT = 8.0, 18.0  # pixels of a character
_STYLE = (
    "svg{background:#16181d}text{font:13px monospace;white-space:pre;fill:#d6d9de}"
    "g{opacity:0;animation:show 0s forwards}@keyframes show{to{opacity:1}}"
    "@media(prefers-reduced-motion){g{animation-delay:0s!important}}"
)


@dataclass(frozen=True)
class Recording:
    """What a command printed.

    :param lines: each with the seconds from the command's start
    """

    status: int
    lines: tuple[tuple[float, str], ...]

    @property
    def text(self) -> str:
        return "\n".join(Text.from_ansi(line).plain for _, line in self.lines)

    def write_svg(self, file: Path, command: str) -> None:
        """Write the image, the command as a person types it on top."""
        shorter = min(1.0, LONGEST / max([seconds for seconds, _ in self.lines], default=1.0))
        shown = [(0.0, f"\x1b[1m$ {command}"), *((seconds * shorter, line) for seconds, line in self.lines)]
        rows = "\n".join(_row(number, *line) for number, line in enumerate(shown, 1))
        width, height = (COLUMNS + 2) * WIDTH, (len(shown) + 1) * HEIGHT
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">\n'
            f"<title>{escape(command)}</title><style>{_STYLE}</style>\n{rows}\n</svg>\n",
            encoding="utf-8",
        )


def record(argv: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> Recording:
    """Run a command in a terminal of its own until it ends."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    start, lines, rest = time.monotonic(), [], b""
    terminal = {**environment, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    with subprocess.Popen(argv, cwd=cwd, env=terminal, stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        while chunk := _read(ours):
            *complete, rest = (rest + chunk).split(b"\n")
            lines += [(time.monotonic() - start, line.decode(errors="replace").rstrip("\r")) for line in complete]
    os.close(ours)
    return Recording(process.returncode, tuple(lines))


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when the last process has closed it
        return b""


def _row(number: int, seconds: float, line: str) -> str:
    spans, column = [], 0
    for segment in Text.from_ansi(line).render(_CONSOLE):
        spans.append(_span(segment, column))
        column += segment.cell_length
    return f'<g style="animation-delay:{seconds:.2f}s"><text y="{number * HEIGHT:g}">{"".join(spans)}</text></g>'


def _span(segment: Segment, column: int) -> str:
    style = segment.style
    color = style.color.get_truecolor().hex if style and style.color and not style.color.is_default else ""
    looks = (f' fill="{color}"' if color else "") + (' font-weight="bold"' if style and style.bold else "")
    place = (
        f'x="{(column + 1) * WIDTH:g}" textLength="{segment.cell_length * WIDTH:g}" lengthAdjust="spacingAndGlyphs"'
    )
    return f"<tspan {place}{looks}>{escape(segment.text)}</tspan>" if segment.text.strip() else ""


if __name__ == "__main__":
    made = record(sys.argv[2:], Path.cwd(), os.environ)
    shown = [(seconds, line.replace(str(Path.cwd()), "/path/to/clone")) for seconds, line in made.lines]
    replace(made, lines=tuple(shown)).write_svg(Path(sys.argv[1]), " ".join(sys.argv[2:]))
    sys.exit(made.status)

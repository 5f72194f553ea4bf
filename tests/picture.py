"""Draw the README's picture: the demo's own output on a terminal, as SVG. `python -m tests.picture` after a change of the demo."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).resolve().parents[1] / "notebooks" / "guides" / "demo.svg"
COLUMNS = 112


def main() -> None:
    """Run `dblens demo` on a pseudo-terminal and export what it shows."""
    with tempfile.TemporaryDirectory() as folder:
        inner, outer = pty.openpty()
        command = [sys.executable, "-m", "dblens", "demo", "--folder", f"{folder}/shop"]
        process = subprocess.Popen(
            command, stdout=outer, stderr=outer, env={**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
        )
        os.close(outer)
        shown = b""
        while True:
            try:
                piece = os.read(inner, 65536)
            except OSError:
                break
            shown += piece
        assert process.wait() == 0, shown.decode(errors="replace")
        text = shown.decode().replace("\r\n", "\n").replace(folder, "")
    text = re.sub(r"on port \d+", "on a free port", re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1", text))
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print("$ dblens demo", style="bold")
    console.print(Text.from_ansi(text))
    PICTURE.write_text(console.export_svg(title="dblens demo"), "utf-8")


if __name__ == "__main__":
    main()

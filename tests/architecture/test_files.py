"""What may lie in the repository: folders, sizes, no addresses of machines."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"dblens", "notebooks", "extensions", "flows", "tests"}
FILES = {"pyproject.toml", "README.md", "LICENSE", "CONTRIBUTING.md", "CHANGELOG.md", "hatch_build.py"}
LOCK = re.compile(r"^(uv\.lock|pylock(\..+)?\.toml|requirements.*\.(txt|lock)|package-lock\.json|.*\.lock)$")
CAP, REASON = 600, "Over 600 lines because"


@cache
def tracked() -> tuple[Path, ...]:
    """Return the files that are committed or about to be: what git does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if result.returncode != 0:
        pytest.skip("not a git checkout: which files are committed cannot be known")
    return tuple(ROOT / name for name in result.stdout.decode().split("\0") if name and (ROOT / name).is_file())


def texts() -> list[tuple[Path, str]]:
    """Return the tracked text files."""
    found = []
    for path in tracked():
        try:
            found.append((path, path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return found


def test_only_the_agreed_top_level() -> None:
    names = {path.relative_to(ROOT).parts[0] for path in tracked()}
    surplus = {n for n in names if n not in FOLDERS | FILES and not n.startswith(".") and not LOCK.match(n)}
    assert not surplus


def test_long_files_say_why() -> None:
    code = [path for path in tracked() if path.suffix in {".py", ".ts", ".tsx", ".css", ".sh"}]
    assert code
    long = {str(p.relative_to(ROOT)): n for p in code if (n := len(p.read_text().splitlines())) > CAP}
    silent = {
        name: n for name, n in long.items() if REASON not in "\n".join((ROOT / name).read_text().splitlines()[:20])
    }
    assert not silent, f"write {REASON!r} … at the top, or split"


def test_modules_have_a_docstring() -> None:
    missing = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.suffix == ".py" and path.parts[len(ROOT.parts)] == "dblens" and path.stat().st_size
        if not path.read_text().lstrip().startswith(('"""', 'r"""'))
    ]
    assert not missing


# Put together from pieces, so that this file does not hold what it looks for.
MACHINE = re.compile(
    "|".join(
        [
            r"(?<![\w.])/" + r"work/(?:main|shared|\.library)\b",
            r"(?<![\w.])/" + r"root/\.?\w",
            r"(?<![\w.$}])/" + r"home/[a-z]\w*/",
            r"(?<![\w.])/" + r"Users/[A-Za-z]\w*/",
            r"(?<![\w.])/" + r"tmp/w/",
        ]
    )
)
REGISTRY = re.compile(
    "|".join(
        [
            r"(?:extra-)?index-" + r"url\s*[= ]",
            r"registry\s*=\s*" + r"\"?https?:",
            r"https?://[^\s\"')]*/" + r"simple/?(?=[\s\"')]|$)",
            r"https?://[^\s\"')/]*(?:artifactory|" + r"nexus|devpi|verdaccio)",
            r"\"resolved\":\s*" + r"\"https?://(?!registry\.npmjs\.org/)",
            r"https?://(?:deb|security|ftp)\." + r"debian\.org",
        ]
    ),
    re.IGNORECASE,
)


@pytest.mark.parametrize(("what", "pattern"), [("a machine's path", MACHINE), ("a registry's address", REGISTRY)])
def test_no_addresses(what: str, pattern: re.Pattern[str]) -> None:
    found = [f"{p.relative_to(ROOT)}: {m[0]}" for p, text in texts() for m in pattern.finditer(text)]
    assert not found, what


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (MACHINE, "see /work" + "/main/x.py"),
        (MACHINE, "open('/home" + "/ann/data.db')"),
        (REGISTRY, "pip install --index-" + "url http://10.0.0.1/x"),
        (REGISTRY, '"resolved": "' + 'http://10.1.2.3:4873/a.tgz"'),
    ],
)
def test_the_patterns_find_what_they_are_for(pattern: re.Pattern[str], text: str) -> None:
    assert pattern.search(text)

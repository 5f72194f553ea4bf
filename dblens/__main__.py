"""`python -m dblens` is the `dblens` command."""

from dblens.cli import main

main()

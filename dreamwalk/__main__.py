"""`python -m dreamwalk` is the command `dreamwalk`."""

from dreamwalk.cli import main

main()

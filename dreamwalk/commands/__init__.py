"""The six verbs of the command line: their flags, and what each does."""

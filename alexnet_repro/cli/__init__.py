"""The command line: its grammar, its option types, its commands."""

"""The `dalle-flow` command: thin commands over the library, one file per group.

Nothing here imports torch or a model before a command needs it, so that `--help` answers at once.
"""

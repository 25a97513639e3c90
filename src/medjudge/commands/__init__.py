"""The small commands: one file each, called by `cli`."""

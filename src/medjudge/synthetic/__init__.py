"""The fact base, and the writers of built-in rows."""

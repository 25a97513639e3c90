"""Rows of any source -> checked, split cases."""

"""Readers of the files in which other programs store verdicts: one module per program, `catalog` lists them."""

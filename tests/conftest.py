"""Shared set-up. `tests` is a package, so that `from tests.shared_data import require_shared` works everywhere."""

import pytest

# The replays are no test modules, but their assertions are what a test of theirs reports.
pytest.register_assert_rewrite("tests.replays")

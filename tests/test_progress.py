"""The line of progress keeps what a person waits for, at any width, in a terminal and in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from medjudge import progress
from medjudge.progress import Bar, LogLines, duration, progress_line, roughly

INFO = "reward 0.834  frac_reward_zero_std 0.125  mean_length 41.2"


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("title", ["sft", "evaluate grpo, position and verbosity of the second rewording"])
@pytest.mark.parametrize("left_s", [None, 42, 3725])
def test_count_and_time_left_are_whole_at_every_width(width: int, title: str, left_s: float | None) -> None:
    line = progress_line(title, 1234, 23990, 3600, left_s, INFO, width).plain
    assert len(line) <= width
    assert "1,234/23,990" in line
    assert f"{'-:--' if left_s is None else duration(left_s)} left" in line
    assert "\n" not in line


def test_more_room_shows_more() -> None:
    narrow, middle, wide = (progress_line("grpo", 8, 80, 65, 600, INFO, width).plain for width in (34, 80, 140))
    assert "elapsed" not in narrow
    assert "1:05 elapsed" in middle
    assert "reward 0.834" in middle
    assert "mean_length 41.2" in wide
    assert wide.count("━") == progress.BAR_WIDTH


def test_the_bar_in_a_terminal_of_60_columns_keeps_step_total_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    console = Console(file=io.StringIO(), force_terminal=True, width=60, color_system=None)
    bar = progress.training_bar(console)
    bar.get_time = lambda: clock.now
    task = bar.add_task("grpo", total=80, info=INFO)
    clock.now += 400.0
    bar.update(task, completed=40)
    with console.capture() as capture:
        console.print(bar.get_renderable())
    line = capture.get().rstrip("\n")
    assert "40/80  6:40 left" in line  # 400 s for 40 steps, in steps that may take a minute each
    assert max(len(part) for part in line.splitlines()) <= 60
    assert len(line.splitlines()) == 1


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight hours in steps of two seconds: 14,400 steps, some hundred lines."""
    clock = Clock(monkeypatch)
    out = io.StringIO()
    lines = LogLines("sft", 14_400, Console(file=out, width=140))
    for step in range(1, 14_401):
        clock.now += 2
        lines.show(step, "loss 0.5")
    printed = out.getvalue().splitlines()
    assert 50 < len(printed) < 130
    # 20 s after the start: ten steps of 14,400, 2 s each.
    assert printed[0] == "  sft: step 10/14,400, about 8.0 h left  loss 0.5"


def test_steps_of_an_earlier_sitting_do_not_make_this_one_look_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    out = io.StringIO()
    lines = LogLines("grpo", 80, Console(file=out, width=140), done=60)
    clock.now += 30
    lines.show(61)
    # One step in 30 s, 19 to go: 570 s.
    assert out.getvalue() == "  grpo: step 61/80, about 10 min left\n"


def test_an_evaluation_in_a_log_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    out = io.StringIO()
    with Bar("evaluate grpo", 400, Console(file=out, width=140)) as bar:
        for _ in range(20):
            clock.now += 10
            bar.advance(20)
    printed = out.getvalue().splitlines()
    assert printed[0] == "  evaluate grpo: case 40/400, about 3 min left"
    assert printed[-1] == "  evaluate grpo: 400 cases in 3 min"


@pytest.mark.parametrize(
    ("seconds", "short", "words"),
    [(0, "0:00", "0 s"), (89, "1:29", "89 s"), (754, "12:34", "13 min"), (7300, "2:01:40", "2.0 h")],
)
def test_durations(seconds: float, short: str, words: str) -> None:
    assert duration(seconds) == short
    assert roughly(seconds) == words

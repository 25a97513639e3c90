"""What a person sees while a model trains, and what a cut-off run finds again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.progress import Progress, TaskID
from transformers import TrainerCallback

from medjudge import artifacts
from medjudge.log import shown_on
from medjudge.progress import LogLines, training_bar


class Watch(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """A progress bar with the remaining time (a line now and then where there is no terminal); whole checkpoints."""

    def __init__(self, title: str, keys: tuple[str, ...]) -> None:
        """Shown where `log.show_on` shows. keys: entries of the trainer's log beside the bar, such as `loss`."""
        self.title, self.keys, self.console = title, keys, shown_on()
        self.progress: Progress | None = None
        self.task: TaskID | None = None
        self.lines: LogLines | None = None
        self.shown = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Opens the bar where the run stands."""
        if not self.console.is_interactive:
            self.lines = LogLines(self.title, state.max_steps, self.console, done=state.global_step)
        else:
            self.progress = training_bar(self.console)
            self.progress.start()
            done = state.global_step
            self.task = self.progress.add_task(self.title, total=state.max_steps, completed=done, first=done, info="")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Moves the bar on."""
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=state.global_step, info=self.shown)
        elif self.lines is not None:
            self.lines.show(state.global_step, self.shown)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Remembers the figures that stand beside the bar."""
        parts = [
            f"{key.rpartition('/')[2]} {float(logs[key]):.3g}"
            for key in self.keys
            if logs and logs.get(key) is not None
        ]
        self.shown = "  ".join(parts) or self.shown

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Marks the checkpoint as whole: the trainer calls this after its last file."""
        if state.is_world_process_zero:
            artifacts.mark_checkpoint_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Closes the bar."""
        self.close()

    def close(self) -> None:
        """Closes the bar; also after an error, so that the terminal is whole again."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


def clean_history(log_history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The trainer's log with what JSON cannot hold (NaN, infinity) as None, and timings left out: they never repeat."""
    return [
        {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in entry.items()
            # Times differ from run to run, and the log of a resumed run is to equal an uninterrupted one's.
            if not key.endswith(("_runtime", "_per_second")) and key != "step_time"
        }
        for entry in log_history
    ]

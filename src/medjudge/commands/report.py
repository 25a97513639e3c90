"""`medjudge report`: the page of a folder, written again."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from medjudge import artifacts
from medjudge.errors import RunError
from medjudge.files import make_folder
from medjudge.metrics.published import SuiteResults
from medjudge.reporting.card import write_card
from medjudge.reporting.gather import gather, versions_of
from medjudge.reporting.html import write_report
from medjudge.reporting.suite import write_suite_page
from medjudge.runs.output_folder import renew_pages
from medjudge.runs.run_dir import RunDir
from medjudge.settings.evaluate import ReportConfig


@artifacts.private_files()
def rewrite(folder: Path, console: Console, *, show_text: bool | None = None) -> None:
    """Writes the page of a run folder, or of a folder that `medjudge evaluate` made, again.

    show_text: takes the place of `report.show_text`.
    """
    if (folder / artifacts.COMPARE / artifacts.RESULTS).exists():  # a recipe with variants
        folder = folder / artifacts.COMPARE
    if (folder / artifacts.SUITE).exists():  # made by `medjudge bench`
        suite = artifacts.read_as(folder / artifacts.SUITE, SuiteResults.from_json)
        for name, one in suite.sets.items():
            write_report(gather(folder / name, ReportConfig(title=f"{name}: {one.title}")), folder / name)
            RunDir(folder).output(name).renew_pages()
        commands = artifacts.read_commands(folder / artifacts.COMMANDS)
        write_suite_page(suite, folder, commands, versions_of(folder) or {})
        renew_pages(folder)
        return
    if (folder / artifacts.RESULTS).exists():  # made by `medjudge evaluate`
        write_report(gather(folder, ReportConfig(show_text=bool(show_text))), folder)
        renew_pages(folder)
        return
    if not (folder / "evaluate" / artifacts.RESULTS).exists():
        raise RunError(
            f"{folder} holds no {artifacts.RESULTS}. Name a run folder that was evaluated, such as runs/demo, "
            "or the --out folder of `medjudge evaluate` or `medjudge bench`."
        )
    config = artifacts.read_as(
        folder / artifacts.RECIPE, lambda tree: ReportConfig.model_validate(tree.get("report", {}))
    )
    config = config if show_text is None else config.model_copy(update={"show_text": show_text})
    run_dir = RunDir(folder)
    with run_dir.lock():
        out = folder / "report"
        make_folder(out)
        inputs = gather(folder, config)
        write_card(inputs, out)
        write_report(inputs, out)
        run_dir.output("report").renew_pages()

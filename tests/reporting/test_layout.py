"""What stands first on the page, and that nothing is cut off on a screen or a phone."""

import html
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from rich.console import Console

from medjudge.metrics.coverage import outcome_sentence
from medjudge.metrics.summary import AnalysisOptions, JudgeFacts, summarise
from medjudge.records import Case, Unparsed, Verdict
from medjudge.reporting.card import render_card
from medjudge.reporting.html import write_report
from medjudge.reporting.inputs import ReportInputs
from medjudge.reporting.tables import audit_tables, results_tables
from medjudge.tasks.scale import LabelScale

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def measured(names, n=120):
    """Judges on a task of two labels, with generators, a slice, gaps of several kinds and prompts that were cut."""
    rng = np.random.default_rng(0)
    wards = ["cardiology", "a ward with a rather long name", "surgery"]
    cases = [
        Case(
            f"c{i}",
            {"q": "x"},
            gold=("no", "yes")[i % 2],
            group=f"g{i // 2}",
            slices={"generator": "model-" + "ab"[i // 2 % 2], "ward": wards[i % 3]},
        )
        for i in range(n)
    ]
    said = {}
    for place, name in enumerate(names):
        rows = [Verdict(c.case_id, c.gold if rng.random() < 0.8 else "no", float(rng.uniform(0.5, 1))) for c in cases]
        if place == 1:
            rows = [*rows[:-30], *(Unparsed(c.case_id, "", "declined", kind="refused") for c in cases[-30:-10])]
        said[name] = rows
    return summarise(
        cases,
        said,
        contract=LabelScale(labels=("no", "yes"), positive="yes"),
        split="test",
        facts={names[0]: JudgeFacts(words_cut={c.case_id: 5 * (i % 4 == 0) for i, c in enumerate(cases)})},
        options=AnalysisOptions(reference=names[0], slices=("ward",), n_resamples=50),
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    results = measured(["base", "sft", "grpo"])
    path = write_report(ReportInputs("A run", results), tmp_path_factory.mktemp("page"))
    return results, path.read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")


def test_the_outcome_then_the_table_then_the_findings(page):
    results, text = page
    outcome = html.escape(outcome_sentence(results), quote=False).replace("'", "&#39;")
    table, findings = text.index("<table>"), text.index('id="findings"')
    assert text.index(outcome) < text.index('id="metrics"') < table < findings < text.index('id="comparisons"')
    assert text[:table].count("<li>") - text[:table].count('<li><a href="#') <= 7
    section = text[findings : text.index("</section>", findings)]
    first, _, collapsed = section.partition("<details>")
    assert 0 < first.count("<li>") <= 7
    for line in (*results.statements, *results.audit.statements):
        assert section.count(html.escape(line, quote=False).replace("'", "&#39;").replace('"', "&#34;")) == 1, line
    assert collapsed.count("<li>") + first.count("<li>") == len(results.statements) + len(results.audit.statements)


def test_the_main_tables_of_a_binary_task_have_kappa_ppv_and_npv(page):
    results, text = page
    table = text[text.index('id="metrics"') :]
    table = table[: table.index("</table>")]
    console = Console(width=200, color_system=None, file=io.StringIO())
    console.print(*results_tables(results, 200))
    card = render_card(ReportInputs("A run", results), "sft")
    for head in ("Accuracy", "Answered only", "Coverage", "Kappa", "PPV", "NPV"):
        assert head in re.findall(r"<th[^>]*>([^<]*)</th>", table)
        assert head in console.file.getvalue()
    for title in ("positive predictive value (PPV), %", "negative predictive value (NPV), %", "Cohen's kappa"):
        assert f"| {title} |" in card
    assert "120 cases" in card
    row = table[table.index(">sft<") :]
    for text_of in ("90 answered", "20 refused", "10 absent"):
        assert text_of in row
        assert text_of.split()[1] in console.file.getvalue()
        assert text_of in card


def test_the_whole_table_is_shown_in_parts_where_the_terminal_is_narrow(page):
    results, _ = page
    console = Console(width=80, color_system=None, file=io.StringIO())
    for table in results_tables(results, 80):
        console.print(table)
    text = console.file.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    for head in ("Accuracy", "Coverage", "Kappa", "PPV", "NPV", "Macro-F1"):
        assert head in text
    for name, model in results.models.items():
        assert name in text
        assert f"{100 * model.metrics['accuracy'].value:.1f}" in text


def test_slices_and_cut_prompts_have_a_table_on_page_and_terminal(page):
    results, text = page
    console = Console(width=200, color_system=None, file=io.StringIO())
    for table in audit_tables(results, 200):
        console.print(table)
    for where in (text, console.file.getvalue()):
        assert "sft by ward" in where
        assert "a ward with" in where
        assert "Shortened prompts" in where
        assert "30 of 120" in where
        assert "Unparsed" in where
    assert "20 refused" not in text[text.index("base by ward") : text.index("sft by ward")]


def test_the_card_names_the_kinds_of_gaps(page):
    results, _ = page
    assert "unparsed 30 (20 refused, 10 absent)" in render_card(ReportInputs("A run", results), "sft")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("names", [["base", "sft"], [f"organisation/a-rather-long-model-name-{i}b" for i in range(8)]])
def test_nothing_is_clipped_on_a_screen_and_tables_scroll_within_themselves_on_a_phone(names, tmp_path):
    path = write_report(ReportInputs("A run", measured(names)), tmp_path)
    text = html.escape(path.read_text(encoding="utf-8"))
    found = {}
    for width in (1280, 390):
        frame = (
            f'<meta charset="utf-8"><body><iframe id="f" style="width:{width}px;height:4000px;border:0" '
            f'srcdoc="{text}">'
            "</iframe><script>f.onload = () => { const d = f.contentDocument; "
            "d.querySelectorAll('details').forEach(x => { x.open = true }); "
            "const wide = [...d.querySelectorAll('.scroll')].filter(s => s.scrollWidth > s.clientWidth + 1); "
            "document.body.dataset.found = JSON.stringify({page: d.documentElement.scrollWidth, "
            "inner: f.contentWindow.innerWidth, wide: wide.map(s => s.getAttribute('aria-label'))}) }</script></body>"
        )
        outer = tmp_path / f"frame{width}.html"
        outer.write_text(frame, encoding="utf-8")
        done = subprocess.run(
            [
                *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
                *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000", "--virtual-time-budget=5000"),
                *("--dump-dom", outer.as_uri()),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        match = re.search(r'data-found="([^"]*)"', done.stdout)
        assert match, done.stderr[-500:]
        found[width] = json.loads(html.unescape(match.group(1)))
    assert found[1280]["wide"] == []
    assert all(one["page"] <= one["inner"] for one in found.values())
    assert found[390]["wide"]  # the tables are wider than a phone, and scroll

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from medjudge.reporting.html import flatten, lineage_tree, write_report
from medjudge.reporting.inputs import ReportInputs, VerdictRow

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Checks that tags nest, and gathers what the tests ask about."""

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.images, self.text, self.ids, self.targets = [], [], [], [], set(), set()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(attributes)
        if "id" in attributes:
            self.ids.add(attributes["id"])
        if tag == "a":
            self.targets.add(attributes["href"])
        assert tag not in {"script", "link", "iframe"}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)
            if self.open[-1] in ("h1", "h2"):
                self.headings.append(data)


@pytest.fixture(scope="module")
def written(report_inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    path = write_report(report_inputs, folder)
    return path, Page(path.read_text(encoding="utf-8"))


def test_all_sections_in_order(written):
    _, page = written
    assert page.headings == [
        "Imaging appropriateness with <tiny> weights & all",
        "Metrics",
        "Findings",
        "Metrics in pictures",
        "Comparisons on the same rows",
        "Agreement",
        "Confidence",
        "Confusion matrices",
        "Per class",
        "Wrong and unreadable answers",
        "Training",
        "Data and leakage",
        "Lineage",
        "Reproduce",
    ]
    assert {target.removeprefix("#") for target in page.targets} <= page.ids


def test_self_contained(written):
    path, page = written
    html = path.read_text(encoding="utf-8")
    assert not re.search(r"(https?:)?//\w", re.sub(r"data:image/png;base64,[\w+/=]+", "", html))
    assert not re.search(r"\b(src|href)=\"(?!data:|#)", html)
    assert "url(" not in html
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.images)


def test_every_picture_has_a_text_alternative_and_is_a_file_too(written):
    path, page = written
    files = sorted((path.parent / "figures").iterdir())
    assert len(page.images) == len(files) == 11
    assert all(len(image["alt"]) > 40 for image in page.images)
    embedded = {base64.b64decode(image["src"].partition(",")[2]) for image in page.images}
    assert embedded == {file.read_bytes() for file in files}
    assert not [file for file in path.parent.rglob("*") if file.name.endswith(".tmp")]


def test_says_what_matters(written, report_inputs):
    _, page = written
    text = " ".join(" ".join(page.text).split())
    for statement in report_inputs.results.statements:
        assert statement in text
    assert "not a medical device" in text
    for model in report_inputs.results.models.values():
        assert f"{model.n:,}" in text
    assert "base: 0 wrong, 600 unreadable of 600" in text
    assert "20 of 600 are listed." in text
    assert "sft.lora.r = 16" in text
    assert "medjudge run recipes/demo.toml" in text
    assert "torch 2.8.0" in text
    assert "field 'exp' is empty" in text
    assert "evaluated as grpo" in text
    assert "c3c3c3c3c3c3" in text
    assert "merge proven: logits differ by at most 3.1e-06" in text
    assert "Near duplicate" in text


def test_a_difference_that_is_not_shown_is_not_claimed(written, report_inputs):
    path, _ = written
    comparison = report_inputs.results.comparison("grpo", "sft")
    assert comparison.mcnemar.p > 0.05
    row = re.search(r"grpo <span class=\"soft\">minus</span> sft.*?</tr>", path.read_text(encoding="utf-8"), re.DOTALL)
    assert "not shown" in row.group()


def test_no_completion_on_the_page(written):
    path, _ = written
    assert "PATIENT TEXT" not in path.read_text(encoding="utf-8")


def test_unreadable_answers_first_then_the_most_confident_errors(written, report_inputs):
    path, _ = written
    html = path.read_text(encoding="utf-8")
    section = html[html.index("Wrong and unreadable answers of sft") :]
    section = section[: section.index("</table>")]
    n_unparsed = report_inputs.results.models["sft"].n_unparsed
    assert section.count("unreadable:") == min(20, n_unparsed)
    confidences = [float(c) for c in re.findall(r"<td>(\d\.\d\d)</td>", section)]
    assert confidences == sorted(confidences, reverse=True)


def test_evaluation_alone_renders(report_inputs, tmp_path):
    """Nothing but results of one model, without lineage, histories, leakage check or baselines."""
    results = report_inputs.results
    bare = results.model_copy(
        update={
            "models": {"m": results.models["sft"].model_copy(update={"lineage": None})},
            "comparisons": (),
            "leakage": {},
            "reference": None,
            "audit": None,
            "skipped_baselines": {"surface": "there are no training rows."},
        }
    )
    page = Page(write_report(ReportInputs("Evaluation", bare), tmp_path).read_text(encoding="utf-8"))
    assert "Training" not in page.headings
    assert "Lineage" not in page.headings
    text = " ".join(" ".join(page.text).split())
    assert "One model was evaluated: there is nothing to compare it with." in text
    assert "Leakage: no check was made" in text
    assert "surface not run: there are no training rows." in text


def test_nothing_given_by_users_is_markup(report_inputs, tmp_path):
    evil = "<script>alert(1)</script>"
    inputs = replace(
        report_inputs,
        title=evil,
        commands=[evil],
        recipe={"name": evil},
        lint={evil: 1},
        histories={},
        description=evil,
    )
    text = write_report(inputs, tmp_path).read_text(encoding="utf-8")
    Page(text)  # asserts that there is no script tag
    assert "&lt;script&gt;" in text


def test_written_again_in_place(report_inputs, tmp_path):
    small = replace(report_inputs, histories={}, verdicts={})
    first = write_report(small, tmp_path).read_bytes()
    assert write_report(small, tmp_path).read_bytes() == first


def test_lineage_tree_holds_each_ancestor_once(report_inputs):
    (base,) = lineage_tree(report_inputs.results)
    assert base.evaluated_as == ["base"]
    (sft_adapter,) = base.children
    (sft,) = sft_adapter.children
    assert sft.evaluated_as == ["sft"]
    (grpo_adapter,) = sft.children
    (grpo,) = grpo_adapter.children
    assert grpo.evaluated_as == ["grpo"]
    assert grpo.facts == [
        "merge proven: logits differ by at most 4.5e-06 from those of the full-precision parent with its adapter"
    ]
    assert not grpo.children


def test_flatten():
    assert flatten({"a": {"b": 1, "c": {}}, "d": ["x"], "e": None}) == [
        ("a.b", "1"),
        ("a.c", "{}"),
        ("d", '["x"]'),
        ("e", "null"),
    ]


def test_text_of_cases_only_where_asked_for(report_inputs, written, tmp_path):
    assert "Each opens to its prompt" not in written[0].read_text(encoding="utf-8")
    rows = [
        VerdictRow("c1", "Usually Appropriate", None, reason="no answer", prompt="[user]\n<b>pain</b>", completion=""),
        VerdictRow("c2", "Usually Appropriate", "May Be Appropriate", 0.9, prompt="[user]\nfever", completion="May be"),
    ]
    asked = replace(report_inputs, verdicts={"grpo": rows})
    page = write_report(asked, tmp_path).read_text(encoding="utf-8")
    Page(page)
    assert "This page holds the text of cases." in page
    assert "&lt;b&gt;pain&lt;/b&gt;" in page
    assert "(empty)" in page
    assert "fever" in page


def test_every_picture_has_words_and_every_table_can_scroll(written):
    """What a phone or a screen reader needs: alternatives in full, wide things in boxes of their own."""
    text = written[0].read_text(encoding="utf-8")
    assert all(len(image["alt"]) > 40 for image in written[1].images)
    assert text.count("<table>") == text.count('<div class="scroll"')
    assert re.findall(r'<div class="scroll"[^>]*>\s*<table>', text)
    assert len(re.findall(r'<div class="scroll"[^>]*>\s*<table>', text)) == text.count("<table>")
    assert 'name="viewport" content="width=device-width' in text
    style = text[text.index("<style>") : text.index("</style>")]
    for rule in (
        ".scroll { overflow-x: auto",
        "pre { background: var(--tint); border-radius: 6px; padding: .8rem 1rem; overflow-x: auto",
    ):
        assert rule in style
    # No length that is wider than a phone stands outside of a scrolling box.
    assert not re.search(r"(?<!max-)(?<!min-)width:\s*\d{3,}px", text)

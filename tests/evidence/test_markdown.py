"""Values in Markdown: a reader sees what they say, and they change nothing around them."""

import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from synthetic import CLAIMS, write_results

from helpers import QUICK, merged, write_params
from trained_binarization.evidence.aggregate import aggregate
from trained_binarization.evidence.markdown import code, escape
from trained_binarization.evidence.report import report_replication, report_study
from trained_binarization.evidence.tables import Cell, Table
from trained_binarization.settings import read_yaml
from trained_binarization.study import load_study

HOSTILE = [
    "<script>alert(1)</script>",
    "a | b || c",
    "two\nlines\r\nand \u2028 more",
    "`code` and ``more``",
    "<!-- claims:end --> and <!--",
    "--> out",
    "[a link](https://example.org) and ![an image](x.png)",
    "[a link][1] and [1]: https://example.org",
    "<https://example.org> and <b>bold</b>",
    "*emphasis* and **strong** and _em_ and __strong__ and ~~gone~~",
    "&lt;script&gt; &#60; &amp;",
    "a backslash \\ and \\| and \\`",
    "C:\\new\\table",
    "vgg_small, 2 < 3 > 1, [0.5, −1.5], a & b, 5 %",
    "[1, 2](https://example.org)",
    '"><img src=x onerror=alert(1)>',
    "| --- |",
]
PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def words(text: str) -> str:
    return " ".join(text.split())


class Page(HTMLParser):
    """The tags and the text of rendered Markdown, each table's rows as lists of cells."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text, self.rows = "", list[list[str]]()
        self.feed(PARSER.render(markdown))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def made_up(count: int) -> list[str]:
    """Texts of the characters that mean something in Markdown, at random."""
    dice = random.Random(0)
    pieces = [*"\\`*_~|[]()<>!&;#:-+. \n\"'/ab1", "](", "<!--", "-->", "</td>", "&lt;", "http://x", "__"]
    return ["a" + "".join(dice.choices(pieces, k=dice.randrange(1, 25))) + "z" for _ in range(count)]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_shows_what_its_value_says(text: str) -> None:
    table = Table("t", "", ["One", "Two", "Three"], [], [[Cell(text), Cell(text, style="code"), Cell("end")]])
    page = Page(table.markdown())
    assert [words(cell) for cell in page.rows[1]] == [words(text)] * 2 + ["end"]
    assert set(page.tags) == {"table", "thead", "tbody", "tr", "th", "td", "code"}


def test_any_text_shows_what_it_says() -> None:
    for text in made_up(1000):
        table = Table("t", "", ["One", "Two", "Three"], [], [[Cell(text), Cell(text, style="code"), Cell("end")]])
        page = Page(table.markdown())
        assert [words(cell) for cell in page.rows[1]] == [words(text)] * 2 + ["end"], repr(text)
        assert set(page.tags) == {"table", "thead", "tbody", "tr", "th", "td", "code"}, repr(text)
        paragraph = Page(f"Said: {escape(text)}, and {code(text)}.\n")
        assert words(paragraph.text) == words(f"Said: {text}, and {text}."), repr(text)
        assert set(paragraph.tags) <= {"p", "code"}, repr(text)


@pytest.mark.parametrize(
    "text", ["vgg_small: 2 < 3 > 1", "[0.5, −1.5] and [-1, 1]", "R&D, a & b", "Xu & Cheung (BMVC 2019)", "{0, 1} + 1"]
)
def test_what_means_nothing_in_markdown_stays_as_it_is(text: str) -> None:
    assert escape(text) == text


def test_what_is_markdown_already_is_not_escaped_again() -> None:
    once = escape("a|b")
    assert escape(once) == once == "a\\|b"
    assert code("a_b") == "`a_b`"


def everywhere(content: Any, text: str) -> Any:
    """Settings with every sentence replaced by a text."""
    if isinstance(content, dict):
        return {key: everywhere(value, text) for key, value in content.items()}
    if isinstance(content, list):
        return [everywhere(value, text) for value in content]
    return text if isinstance(content, str) and " " in content else content


HOSTILE_TOGETHER = "\n".join(HOSTILE).replace("\r", "")


@pytest.mark.parametrize(
    "text",
    [HOSTILE_TOGETHER, "costs $5 and $x_{$", "a <!-- claims:begin --> b"],
    ids=["all together", "mathematics", "a marker"],
)
def test_reports_show_hostile_settings_and_claims_as_text(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies").mkdir()
    path = write_params(tmp_path / "studies" / "quick.yaml", everywhere(read_yaml(QUICK), text))
    claims = everywhere(read_yaml(CLAIMS), text)
    claims = merged(claims, {"networks": {name: {"title": text} for name in claims["networks"]}})
    write_params(tmp_path / "claims.yaml", claims)
    readme = "# Title\n\n<!-- claims:begin -->\nold\n<!-- claims:end -->\n\nEnd.\n"
    (tmp_path / "README.md").write_text(readme, encoding="utf-8")
    study, results = load_study(path), tmp_path / "results"
    assert study.title == text
    write_results(study, results)
    aggregate(study, results, tmp_path / "claims.yaml")
    report_study(study, results, tmp_path / "claims.yaml")
    for _ in range(2):
        assert report_replication(results, tmp_path / "claims.yaml").endswith("claims in README.md")
    assert (tmp_path / "README.md").read_text("utf-8").count("<!-- claims:end -->") == 1
    (tmp_path / "README.md").write_text(
        re.sub("<!-- claims:(begin|end) -->", "", (tmp_path / "README.md").read_text("utf-8")), encoding="utf-8"
    )
    allowed = {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td", "code", "a", "img", "ul", "li", "em"}
    for page in [*results.rglob("*.md"), tmp_path / "README.md"]:
        rendered = Page(page.read_text("utf-8"))
        assert set(rendered.tags) <= allowed | {"strong", "blockquote"}, page
        if page.name == "report.md":
            assert words(text) in words(rendered.text), page
            deviations = [[words(cell) for cell in row[1:]] for row in rendered.rows if len(row) == 4]
            assert [words(text)] * 3 in deviations, page
    for page in results.rglob("report.html"):
        assert not re.search(r"<script|<img src=x|onerror=alert\(1\)>", page.read_text("utf-8"))

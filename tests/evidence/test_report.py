"""Reports: self-contained, every link resolves, the committed ones follow from their records."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from synthetic import CLAIMS, ROOT, cifar10_study, quick_study, write_data, write_results, write_run

from helpers import write_params
from trained_binarization.errors import UserError
from trained_binarization.evidence import readme
from trained_binarization.evidence.aggregate import aggregate
from trained_binarization.evidence.report import report_replication, report_study
from trained_binarization.evidence.verdicts import read_verdicts
from trained_binarization.study import Study, load_study


class Page(HTMLParser):
    """The ids, links and loaded addresses of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.tags: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name == "href" and tag == "a":
                self.links.append(value or "")
            elif name in ("src", "href", "xlink:href", "srcset", "data", "poster"):
                self.loaded.append(value or "")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A house with both studies' reports and the replication's, and a README that has the markers."""
    house = tmp_path_factory.mktemp("house")
    (house / "studies").mkdir()
    for study in (quick_study(), cifar10_study()):
        write_params(house / "studies" / f"{study.study}.yaml", study.model_dump())
    shutil.copyfile(CLAIMS, house / "claims.yaml")
    answer = "<!-- answer:begin -->\nold\n<!-- answer:end -->\n"
    text = f"# Title\n\n<!-- claims:begin -->\nold\n<!-- claims:end -->\n\nEnd.\n{answer}"
    (house / "README.md").write_text(text, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(house)
        for study in (quick_study(), cifar10_study()):
            write_results(study, Path("results"))
            aggregate(study, Path("results"), Path("claims.yaml"))
            report_study(study, Path("results"), Path("claims.yaml"))
        report_replication(Path("results"), Path("claims.yaml"))
    return house


@pytest.fixture
def built(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its results folder, from within the house."""
    monkeypatch.chdir(made)
    return made / "results"


def test_pages_load_nothing_and_every_link_resolves(built: Path) -> None:
    pages = {path.resolve(): Page(path) for path in built.rglob("report.html")}
    assert len(pages) == 3
    for path, page in pages.items():
        assert all(address.startswith(("data:", "#")) for address in page.loaded), path
        assert "script" not in page.tags
        assert not re.search(r"@import|url\((?!#)", path.read_text("utf-8"))
        assert len(page.ids) == len(set(page.ids)), path
        for link in page.links:
            file, _, anchor = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            assert target.exists(), link
            if anchor:
                assert anchor in pages[target].ids, link
        assert any(link for link in page.links)


def test_markdown_links_resolve(built: Path) -> None:
    for path in [*built.rglob("report.md"), Path("README.md")]:
        text = path.read_text("utf-8")
        for link in re.findall(r"\]\(([^)]+)\)", text):
            file, _, anchor = link.partition("#")
            target = path.parent / file if file else path
            assert target.exists(), link
            assert not anchor or f'<a id="{anchor}">' in target.read_text("utf-8"), link


def test_the_readmes_answer_says_what_the_verdicts_say(built: Path) -> None:
    found = read_verdicts(built / "cifar10" / "verdicts.json")
    assert found is not None
    answer = Path("README.md").read_text("utf-8").partition("<!-- answer:begin -->\n")[2]
    judged = {verdict.claim: verdict for verdict in found.verdicts if verdict.outcome != "not run"}
    assert len(judged) == 5
    for verdict in judged.values():
        assert answer.count(f"**{verdict.outcome.capitalize()}.**") >= 1
        assert f"{verdict.ours:.2f}" in answer
    assert "- **Not run.** 4 of 9 claims: no such study (4)." in answer
    assert "old" not in answer


def test_the_committed_readme_follows_from_the_committed_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each number of its answer stands in the verdicts that it links to."""
    monkeypatch.chdir(ROOT)
    answer = (
        Path("README.md").read_text("utf-8").partition("<!-- answer:begin -->\n")[2].partition("<!-- answer:end")[0]
    )
    rows = [
        row
        for study in ("cifar10", "ablation-resnet")
        if (row := read_verdicts(ROOT / "results" / study / "verdicts.json"))
    ]
    ours = [v.ours for found in rows for v in found.verdicts if v.ours is not None and v.stand_in is None]
    effects = [one.difference for found in rows for one in found.family or [] if one.difference is not None]
    said = re.findall(r"(?:Here: \[|: )([+−]?\d+\.\d\d)", answer)
    assert len(said) >= 5
    possible = {f"{one:.2f}" for one in ours} | {f"{one:+.2f}".replace("-", "−") for one in effects}
    assert set(said) <= possible


def test_the_readmes_answer_leaves_out_a_contrast_whose_seeds_are_not_all_there() -> None:
    study = load_study(ROOT / "studies" / "ablation-resnet.yaml")
    found = read_verdicts(ROOT / "results" / "ablation-resnet" / "verdicts.json")
    assert found is not None
    assert found.family
    part = found.model_copy(update={"family": [row.model_copy(update={"outcome": "not run"}) for row in found.family]})
    said, left = (readme.answer([], [(study, one)], {}, ROOT / "results", "") for one in (found, part))
    assert "points" in said
    assert left.strip() == ""


def test_every_run_links_to_its_record(built: Path, cifar10: Study) -> None:
    page = Page(built / "cifar10" / "report.html")
    for run in cifar10.runs():
        assert f"{run.network}-{run.variant}-seed{run.seed}" in page.ids
        assert f"{run.folder.as_posix()}/record.json" in page.links


def test_stand_ins_are_labelled(built: Path) -> None:
    text = (built / "quick" / "report.html").read_text("utf-8")
    assert "A stand-in:" in text
    assert text.count('<span class="label">stand-in</span>') == 5


def test_without_the_papers_setting_every_claim_is_not_run(house: Path, quick: Study) -> None:
    small = quick.model_copy(update={"study": "small"})
    write_params(house / "studies" / "small.yaml", small.model_dump(by_alias=True))
    for study in (quick, small):  # the one is not in the report over all studies, the other is
        write_results(study, Path("results"))
        aggregate(study, Path("results"), Path("claims.yaml"))
    report_replication(Path("results"), Path("claims.yaml"))
    text = Path("results/report.html").read_text("utf-8")
    assert "small/report.html" in text
    assert "quick" not in text
    assert "9 claims: not run (9)." in text
    assert text.count('<span class="chip missing">not run</span>') == 9
    assert 'class="chip reached"' not in text
    assert '<span class="label">stand-in</span>' in text


def test_not_run_names_the_command(house: Path, cifar10: Study) -> None:
    write_params(house / "studies" / "cifar10.yaml", cifar10.model_dump())
    report_replication(Path("results"), Path("claims.yaml"))
    assert "select cifar10 &amp;&amp; snakemake --cores all" in Path("results/report.html").read_text("utf-8")
    assert "select cifar10 && snakemake --cores all" in Path("results/report.md").read_text("utf-8")


def test_readme_keeps_all_but_the_table(built: Path) -> None:
    text = Path("README.md").read_text("utf-8")
    assert text.startswith("# Title\n\n<!-- claims:begin -->\n| Claim |")
    assert "|\n<!-- claims:end -->\n\nEnd.\n" in text
    assert "old" not in text
    report_replication(Path("results"), Path("claims.yaml"))
    assert Path("README.md").read_text("utf-8") == text


def test_readme_without_markers_is_left_alone(house: Path) -> None:
    Path("README.md").write_text("# Title\n", "utf-8")
    assert "README" not in report_replication(Path("results"), Path("claims.yaml"))
    assert Path("README.md").read_text("utf-8") == "# Title\n"


@pytest.mark.parametrize("count", [0, 4])
def test_unfinished_studies_have_a_report(house: Path, quick: Study, count: int) -> None:
    write_data(quick, Path("results"))
    for run in list(quick.runs())[:count]:
        write_run(quick, run, Path("results"))
    aggregate(quick, Path("results"), Path("claims.yaml"))
    report_study(quick, Path("results"), Path("claims.yaml"))
    text = Path("results/quick/report.html").read_text("utf-8")
    assert f"{count} of 21 runs are done" in text
    last = list(quick.runs())[-1]
    assert quick.command(last) in text


def test_report_before_aggregate_says_what_to_do(house: Path, quick: Study) -> None:
    with pytest.raises(UserError, match=r"verdicts\.json: no such file; make it with: trained-binarization aggregate"):
        report_study(quick, Path("results"), Path("claims.yaml"))


def test_invariance_says_what_the_records_bear_out(built: Path) -> None:
    text = (built / "cifar10" / "report.md").read_text("utf-8")
    assert "For VGG-Small this predicts that these leave the accuracy where it is: no_scaling, no_l2" in text
    assert "lies within ±0.3 points, as predicted" in text
    assert "does not contradict the prediction, and does not confirm it either" in text


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in (ROOT / "results").glob("*/report.html")))
def test_committed_reports_follow_from_the_records(folder: str, tmp_path: Path) -> None:
    study = load_study(ROOT / "studies" / f"{folder}.yaml")
    shutil.copytree(ROOT / "results" / folder, tmp_path / folder)
    for kind in ("html", "md"):
        (tmp_path / folder / f"report.{kind}").unlink()
    report_study(study, tmp_path, CLAIMS)
    for kind in ("html", "md"):
        built = (tmp_path / folder / f"report.{kind}").read_bytes()
        assert built == (ROOT / "results" / folder / f"report.{kind}").read_bytes()

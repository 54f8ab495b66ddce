"""The stage `report`: one self-contained HTML file and its Markdown twin, for a study and for the whole replication."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from trained_binarization import files
from trained_binarization.errors import UserError
from trained_binarization.evidence import comparison, readme, tables
from trained_binarization.evidence.aggregate import study_tables
from trained_binarization.evidence.agreement import read_agreement
from trained_binarization.evidence.claims import Claims, load_claims
from trained_binarization.evidence.families import Effect
from trained_binarization.evidence.figures import BLUE, INK, MUTED, PAPER, RULE
from trained_binarization.evidence.frames import done_records
from trained_binarization.evidence.invariance import THEORY, prediction, what_was_found
from trained_binarization.evidence.left import left_to_run
from trained_binarization.evidence.markdown import Markdown, code, escape
from trained_binarization.evidence.measured import Deployed, Inference
from trained_binarization.evidence.sums import write_sums
from trained_binarization.evidence.tables import Cell, Table
from trained_binarization.evidence.verdicts import (
    StudyVerdicts,
    Verdict,
    known_studies,
    read_verdicts,
    why_not_run,
)
from trained_binarization.progress import duration
from trained_binarization.study import LOCAL, Run, Study, command

HERE = Path(__file__).parent
README = Path("README.md")
FINDINGS = Path("docs/findings.md")

FIGURES = {
    "method": "Above: the binarization of activations and weights. Below: each estimator of its derivative.",
    "ablation": "Method minus ablation. Right of zero, what the ablation leaves out helps. Intervals carry Holm's "
    "correction over all ablations; the band is the declared margin.",
    "family": "Accuracy by ten views, one arm minus another, paired by seed. Intervals carry Bonferroni's correction "
    "over the confirmatory contrasts; the band is their declared margin.",
    "curves": "Accuracy by epoch: mean over seeds, bands from the lowest to the highest seed. Training accuracy is "
    "measured on augmented batches while training. The vertical axis does not begin at zero.",
    "alphas": "The method's learned scaling factors, one of each kind a layer: median over seeds, bands from the "
    "lowest to the highest seed.",
    "size": "Accuracy against model size. Filled: this study's records, with 95 % intervals. Hollow, where there are "
    "any: as printed in the published work, not re-run here.",
}


def _environment(kind: str) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=kind == "html",
        finalize=escape if kind == "md" else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["code"] = code
    environment.filters["chip"] = lambda verdict: tables.chip(verdict.outcome, verdict.says, verdict.delta)
    environment.filters["cells"] = tables.verdict_cells
    return environment


def _render(template: str, kind: str, **context: Any) -> str:
    css = Markup((HERE / "report.css").read_text("utf-8"))
    text = _environment(kind).get_template(f"{template}.{kind}.jinja").render(css=css, **context)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def inline_svg(path: Path, label: str, remedy: str) -> Markup:
    """A figure's SVG to stand inside a page: scalable, in the page's colours, its ids its own.

    UserError with the remedy where the file is not there, damaged, or would do more than show something.
    """
    try:
        svg = path.read_text(encoding="utf-8")
        _only_shows(ElementTree.fromstring(svg))
        svg = svg[svg.index("<svg") :]
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise UserError(f"{path}: found no figure of ours ({error}); {remedy}") from None
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.S)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    for colour, name in ((INK, "ink"), (BLUE, "blue"), (MUTED, "muted"), (RULE, "rule"), (PAPER, "paper")):
        svg = svg.replace(colour, f"var(--{name})")
    name = path.stem
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg).replace("url(#", f"url(#{name}-")
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{Markup.escape(label)}"', 1).strip())


def _only_shows(svg: ElementTree.Element) -> None:
    """ValueError where an SVG holds a script, or names another file."""
    for element in svg.iter():
        names = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        if element.tag.rpartition("}")[2].lower() in ("script", "foreignobject", "iframe", "a"):
            raise ValueError(f"it holds {element.tag}")
        if any(name.startswith("on") for name in names) or not names.get("href", "#").startswith("#"):
            raise ValueError(f"it holds {element.tag} with {sorted(names)}")


def _figures(folder: Path, *, family: bool = False) -> dict[str, dict[str, Any]]:
    found = {}
    for name, caption in FIGURES.items():
        if name == "ablation" and family:
            caption = FIGURES["family"]
        path = folder / "figures" / f"{name}.svg"
        if path.exists():
            remedy = f"make it anew with: {command('aggregate', folder.name)}"
            found[name] = {"svg": inline_svg(path, caption, remedy), "caption": caption, "png": f"figures/{name}.png"}
    return found


def _clean(clean: bool | None) -> str:
    return {True: "clean", False: "with changes", None: "cleanness unknown"}[clean]


def _runs_with_provenance(table: Table, study: Study, results: Path) -> Table:
    """The runs table with where each run was made; the accuracies link to its record and its history."""
    found = {(run.network, run.variant, run.seed): record for run, _, record, _ in done_records(study, results)}
    columns = {heading: i for i, heading in enumerate(table.headings)}
    cells, anchors, seen = [], [], set()
    for raw, row in zip(table.rows, table.cells, strict=True):
        run = Run(network=raw["network"], variant=raw["variant"], seed=int(raw["seed"]))
        record = found[run.network, run.variant, run.seed]
        group = tables.group(run.network, run.variant)[1:]
        anchors.append([f"{group}-seed{run.seed}"] + ([] if group in seen else [group]))
        seen.add(group)
        made = [Cell(tables.DASH, style="number")] * 2 + [Cell(tables.DASH)]
        if record is not None:
            row = list(row)
            for heading, name in (("Last", "record.json"), ("Best", "history.csv")):
                row[columns[heading]] = replace(row[columns[heading]], link=f"{run.folder.as_posix()}/{name}")
            made = [
                Cell(duration(record.wall_seconds), style="number"),
                Cell(f"{record.images_per_second:,.0f}", style="number"),
                Cell(record.commit[:8], style="code"),
            ]
        cells.append([*row, *made])
    caption = f"{table.caption} Last links to the run's record, best to its history."
    return Table(table.name, caption, [*table.headings, "Wall time", "Images/s", "Commit"], table.rows, cells, anchors)


def _provenance(study: Study, results: Path) -> list[tuple[str, list[str]]]:
    """What the finished runs were made on and by, most frequent first; every entry with its number of runs."""
    found = [record for _, _, record, _ in done_records(study, results) if record is not None]
    if not found:
        return []

    def counted(values: list[str]) -> list[str]:
        common = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
        return [value if len(common) == 1 else f"{value} ({n} runs)" for value, n in common]

    speed = [record.images_per_second for record in found]
    speeds = list(dict.fromkeys(f"{one:,.0f}" for one in (min(speed), max(speed))))
    interruptions = sum(record.interruptions for record in found)
    threads = [f"{r.device}{f', {r.driver}' if r.driver else ''}, threads: {r.threads}" for r in found]
    packages = [", ".join(f"{name} {version}" for name, version in r.packages.items()) for r in found]
    images = sorted({f"{record.images_scored:,} {record.scored} images" for record in found})
    return [
        ("Hardware", counted(threads)),
        ("Wall time, all runs", [duration(sum(record.wall_seconds for record in found))]),
        ("Speed", [f"{' to '.join(speeds)} training images/s, evaluation included"]),
        ("Scored", images),
        ("Data", [f"{study.dataset.name}, checksum {found[0].data_checksum[:16]}"]),
        ("Commit", counted([f"{record.commit[:12]}, {_clean(record.clean)}" for record in found])),
        ("Python", counted([record.python for record in found])),
        ("Packages", counted(packages)),
        ("Interruptions", [f"{interruptions}, each resumed from a checkpoint" if interruptions else "none"]),
    ]


def _tally(verdicts: Sequence[Verdict | Effect]) -> str:
    """How many verdicts there are of each outcome, as words."""
    counted = Counter(verdict.outcome for verdict in verdicts)
    return ", ".join(f"{outcome.replace(' larger than delta', '')} ({n})" for outcome, n in counted.items())


def _agreement(folder: Path, study: Study) -> dict[str, Any] | None:
    """What the study's report says of its agreement; None where there is no reference."""
    found = read_agreement(folder)
    if found is None or found.verdict == "no reference":
        return None
    path = folder / "agreement" / "agreement.svg"
    remedy = f"make it anew with: {command('agreement', study)}"
    return {
        "found": found,
        "sentence": comparison.in_words(found).removeprefix(f"{study.study}: "),
        "chip": tables.finding_chip(found.verdict),
        "table": tables.agreement_table(found),
        "figure": {"svg": inline_svg(path, comparison.CAPTION, remedy), "caption": comparison.CAPTION},
        "verdicts": [row for row in found.verdicts if row[1] != row[2]],
    }


def report_study(study: Study, results: Path, claims_path: Path) -> str:
    """Write results/<study>/report.html and report.md from the study's tables, figures, verdicts and records."""
    claims = load_claims(claims_path)
    folder = results / study.study
    found = read_verdicts(folder / "verdicts.json")
    if found is None:
        raise UserError(f"{folder / 'verdicts.json'}: no such file; make it with: {command('aggregate', study)}")
    remedy = f"make it anew with: {command('aggregate', study)}"
    if unknown := {verdict.claim for verdict in found.verdicts} - claims.claims.keys():
        raise UserError(f"{folder / 'verdicts.json'}: claim: found '{min(unknown)}', not in {claims_path}; {remedy}")
    made = {table.name: table for table in study_tables(study, results, found, claims)}
    made["runs"] = _runs_with_provenance(made["runs"], study, results)
    context = {
        "study": study,
        "found": found,
        "agreement": _agreement(folder, study),
        "claims": claims,
        "tables": made,
        "figures": _figures(folder, family=bool(found.family)),
        "prediction": prediction(study, claims),
        "findings": what_was_found(study, found, claims),
        "provenance": _provenance(study, results),
        "tally": _tally([*(found.family or []), *found.verdicts]),
        "paper_says": lambda verdict: tables.paper_says(claims.claims[verdict.claim], claims),
    }
    for kind in ("html", "md"):
        files.write_text(folder / f"report.{kind}", _render("study", kind, **context))
    return f"{folder / 'report.html'}: written, and report.md beside it"


def _replication_rows(judged: dict[str, StudyVerdicts | None], claims: Claims) -> list[dict[str, Any]]:
    """Each claim with the verdict of its own study (or why there is none) and those of stand-ins."""
    rows = []
    for name, claim in claims.claims.items():
        own, stand_ins = None, []
        for study, found in judged.items():
            for verdict in (verdict for verdict in (found.verdicts if found else []) if verdict.claim == name):
                if verdict.stand_in is None:
                    own = verdict
                elif verdict.outcome != "not run":
                    stand_ins.append((study, verdict))
        reason = command = None
        if own is None or own.outcome == "not run":
            reason, command = why_not_run(claim.study, own, judged)
            own = None
        rows.append(
            {
                "name": name,
                "claim": claim,
                "paper": tables.paper_says(claim, claims),
                "own": own,
                "reason": reason,
                "command": command,
                "stand_ins": stand_ins,
            }
        )
    return rows


def _replication_markdown(rows: list[dict[str, Any]], base: str) -> Markdown:
    """The claims table of report.md, stand-ins beside; `base` leads from that file to results/."""
    lines = ["| Claim | Paper | Ours | Verdict | Stand-ins (never the paper's setting) |", "|---|--:|--:|---|---|"]

    def shown(study: str, verdict: Verdict) -> tuple[str, str]:
        ours, interval, _, outcome = tables.verdict_cells(verdict)
        return f"[{ours.text}]({base}{study}/report.md{ours.link}) {interval.text}", outcome.text

    for row in rows:
        claim = row["claim"]
        if row["own"]:
            ours, outcome = shown(claim.study, row["own"])
            outcome = f"**{outcome}**"
        else:
            ours, outcome = tables.DASH, f"not run: {escape(row['reason'])}"
            outcome += f". Run it: {code(row['command'])}" if row["command"] else ""
        beside = ["{0}: {2}, {1}".format(study, *shown(study, verdict)) for study, verdict in row["stand_ins"]]
        claimed = f"| {escape(claim.sentence)} | {row['paper']}"
        lines.append(f"{claimed} | {ours} | {outcome} | {'; '.join(beside) or tables.DASH} |")
    return Markdown("\n".join(lines) + "\n")


def _ingredients(study: Study, found: StudyVerdicts, base: str) -> Table:
    """The contrasts of a study's family in brief; their numbers link into the study's report at `base`."""
    whole = tables.family_table(found)
    brief = [tables.effect_cells(row, base)[: tables.BRIEF] for row in found.family or []]
    return replace(whole, headings=whole.headings[: tables.BRIEF], cells=brief, caption=f"{study.title}.")


def _ingredients_markdown(judged: list[tuple[Study, StudyVerdicts]], base: str) -> Markdown:
    """The contrasts of every family, study by study; `base` leads from that file to results/."""
    parts = []
    for study, found in judged:
        report = f"{base}{study.study}/report.md"
        table = _ingredients(study, found, report)
        parts.append(f"{table.markdown(base)}\n{escape(table.caption)} [More]({report}#what-each-ingredient-does)\n")
    return Markdown("\n".join(parts))


def replace_between(path: Path, marker: str, content: str) -> bool:
    """Put content between a document's markers `<!-- MARKER:begin -->` and end; whether there are such."""
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        return False
    before, _, rest = text.partition(begin)
    new = f"{before}{begin}\n{content}{end}{rest.partition(end)[2]}"
    if new != text:
        files.write_text(path, new)
    return True


def _compact(results: Path, studies: list[Study]) -> dict[str, Any]:
    """What was exported and proven, and the inference benchmark; None where there is none."""
    exported = []
    for study in studies:
        for network in study.networks:
            folder = Path(study.study, "deploy", network)
            path = results / folder / "deploy.json"
            if path.exists():
                remedy = f"make it anew with: {command('deploy', study)} --network {network} --again"
                exported.append((study, network, folder.as_posix(), files.read_model(path, Deployed, remedy)))
    path = results / "benchmarks" / "inference.json"
    if not path.exists():
        return {"exported": exported, "benchmark": None, "figure": None}
    remedy = "measure it anew with: trained-binarization benchmark inference"
    result = files.read_model(path, Inference, remedy).model_dump(by_alias=True)
    caption = (
        f"Latency of study {result['study']}'s {result['network']} by engine, one image at a time, one thread. "
        "Bars: 5 % to 95 % of calls."
    )
    figure = {
        "svg": inline_svg(path.with_suffix(".svg"), caption, remedy),
        "caption": caption,
        "png": "benchmarks/inference.png",
    }
    return {"exported": exported, "benchmark": tables.inference_table(result), "figure": figure}


def report_replication(results: Path, claims_path: Path) -> str:
    """Write results/report.html and report.md, over all studies, and the claims table between README.md's markers.

    At last write results/SHA256SUMS: it lists the evidence that is there then.
    """
    claims = load_claims(claims_path)
    studies = {study.study: study for study in known_studies() if study.study != LOCAL}
    judged = {name: read_verdicts(results / name / "verdicts.json") for name in studies}
    rows = _replication_rows(judged, claims)
    # The figure of the study nearest to the paper: its own, then stand-ins on its data, then any.
    datasets = {claim.dataset for claim in claims.claims.values()}
    nearest = sorted(
        studies.values(), key=lambda study: (study.stand_in is not None, study.dataset.name not in datasets)
    )
    figure = next(
        (s.study for s in nearest if judged[s.study] and (results / s.study / "figures" / "size.svg").exists()), None
    )
    findings = [
        (name, studies[name], what_was_found(studies[name], found, claims)) for name, found in judged.items() if found
    ]
    ingredients = [(studies[name], found) for name, found in judged.items() if found and found.family]
    context = {
        "claims": claims,
        "rows": rows,
        "tally": _tally([row["own"] for row in rows if row["own"]]),
        "table": _replication_markdown(rows, ""),
        "studies": [(study, judged[name]) for name, study in studies.items()],
        "left": left_to_run(list(studies.values()), results),
        "figure_study": studies[figure] if figure else None,
        "size_figure": _figures(results / figure)["size"] if figure else None,
        "ingredients": [_ingredients(study, found, f"{study.study}/report.html") for study, found in ingredients],
        "ingredients_table": _ingredients_markdown(ingredients, ""),
        "theory": THEORY,
        "findings": [(name, study, found) for name, study, found in findings if found],
        "deviations": tables.deviations_table(claims),
        "compact": _compact(results, list(studies.values())),
    }
    for kind in ("html", "md"):
        files.write_text(results / f"report.{kind}", _render("replication", kind, **context))
    replace_between(FINDINGS, "ingredients", _ingredients_markdown(ingredients, f"../{results.name}/"))
    base = f"{results.name}/"
    replace_between(README, "answer", readme.answer(rows, ingredients, studies, results, base))
    named = replace_between(README, "claims", readme.claims_table(rows, studies, results, base))
    write_sums(results)
    return f"{results / 'report.html'}: written, and report.md beside it" + (f"; claims in {README}" if named else "")

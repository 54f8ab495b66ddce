"""Settings files: what YAML 1.2 says or one short line, and bounds on every number and text."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import QUICK, merged, small_settings, write_params
from trained_binarization.errors import LONGEST, UserError
from trained_binarization.evidence.claims import Claims
from trained_binarization.settings import DEEPEST, LARGEST_FILE, read_yaml
from trained_binarization.study import Study, load_study

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{one}: &{one} [{', '.join([f'*{before}'] * 9)}]\n" for before, one in zip("abcdefgh", "bcdefghi", strict=True)
)


def written(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def told(path: Path) -> str:
    """The one line that a file's fault is told in."""
    with pytest.raises(UserError) as error:
        load_study(path)
    line = str(error.value)
    assert line.isprintable()
    assert len(line) <= LONGEST + 5
    return line


# ------------------------------------------------------------------------------------------------------ YAML 1.2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30", "1:30"),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("2019-11-25", "2019-11-25"),
        ("2019-99-99", "2019-99-99"),
        ("1_000", "1_000"),
        ("0b1", "0b1"),
        ("=", "="),
        ("<<", "<<"),
        ("TRUE", True),
        ("false", False),
        ("~", None),
        ("", None),
        ("-0", 0),
        ("+7", 7),
        ("1e-4", 1e-4),
        ("5.0e-4", 5e-4),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("-.inf", float("-inf")),
        ("e4", "e4"),
        ("1.2.3", "1.2.3"),
        ("'1e-4'", "1e-4"),
        ('"010"', "010"),
        ("|\n  010\n", "010\n"),
        ("&name text", "text"),
        ("[1, 'a', null]", [1, "a", None]),
    ],
)
def test_a_value_is_what_yaml_1_2_says(text: str, value: Any, tmp_path: Path) -> None:
    found = read_yaml(written(tmp_path, f"value: {text}\n"))
    assert found == {"value": value}
    assert type(found["value"]) is type(value)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        (BOMB + "title: *i\n", "line 2: found the alias *a; allowed: the value itself"),
        ("a: &a\n  b: *a\n", "line 2: found the alias *a"),
        ("seed: 010\n", "line 1: found '010'; allowed: up to 30 digits, no zero in front"),
        ("seed: 0x10\n", "found '0x10'"),
        ("seed: 0o17\n", "found '0o17'"),
        (f"seed: {'7' * 5000}\n", "(5,002 characters); allowed: up to 30 digits"),
        ("a: 1\na: 2\n", "line 2: key 'a' stands twice"),
        ("a: {b: 1, 'b': 2}\n", "line 1: key 'b' stands twice"),
        ("1: a\n", "found 1 as a key; allowed: text"),
        ("~: a\n", "found None as a key; allowed: text"),
        ("? [1, 2]\n: a\n", "found [1, 2] as a key; allowed: text"),
        ("%YAML 1.1\n---\nseed: 1:30\n", "found another version"),
        ("a: !!int '3'\n", "found the tag tag:yaml.org,2002:int; allowed: none"),
        ("a: !!python/object/apply:os.getcwd []\n", "found the tag"),
        ("!!omap\n- a: 1\n", "found the tag"),
        ("a: 1\n---\nb: 2\n", "found a second document"),
        ('a: "x\\0y"\n', "allowed: text without control characters"),
        ('a: "\\e[31m"\n', "allowed: text without control characters"),
        ('a: "\\uD800"\n', "allowed: text without control characters"),
        ("a: " + "[" * (DEEPEST + 1), "found more than 20 mappings and lists within each other"),
        ("a: " + "{b: " * 20000, "found more than 20 mappings and lists within each other"),
        ("- " * 40000, "found more than 20 mappings and lists within each other"),
        ("#" * LARGEST_FILE + "\n", "found more than 100,000 bytes"),
    ],
)
def test_what_readers_of_yaml_understand_differently_is_one_short_line(
    text: str, fragment: str, tmp_path: Path
) -> None:
    path = written(tmp_path, text)
    line = told(path)
    assert line.startswith(f"{path}: ")
    assert fragment in line
    assert len(line.removeprefix(f"{path}: ")) < 300


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        ('"a\\nb": 1', "a\\nb: unknown key"),
        (f"{'a' * 300}: 1", f"{'a' * 70} … (300 characters): unknown key"),
        (f"other: [{'x, ' * 20000}]", "other: unknown key"),
    ],
)
def test_what_a_message_echoes_is_cut_to_a_line(line: str, fragment: str, tmp_path: Path) -> None:
    assert told(written(tmp_path, f"{QUICK.read_text(encoding='utf-8')}{line}\n")).endswith(
        f"{fragment}; allowed: only keys that the schema has"
    )
    long = merged(small_settings(), {"title": ["x"] * 20000})
    assert "title: found ['x', 'x'" in told(write_params(tmp_path / "params.yaml", long))


def test_a_sexagesimal_number_is_no_number_of_epochs(tmp_path: Path) -> None:
    text = QUICK.read_text(encoding="utf-8").replace("epochs: 8\n", "epochs: 1:30\n")
    assert "pretrain.epochs: found '1:30'; allowed: input should be a valid integer" in told(written(tmp_path, text))


def test_a_seed_with_a_leading_zero_is_refused(tmp_path: Path) -> None:
    text = QUICK.read_text(encoding="utf-8").replace("finetune: [0, 1, 2]", "finetune: [0, 1, 010]")
    assert re.search(r"line \d+: found '010'", told(written(tmp_path, text)))


# -------------------------------------------------------------------------------------------------------- bounds


def fields(schema: dict[str, Any], place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every number and text of a JSON schema, by its place."""
    if schema.get("type") in ("integer", "number", "string"):
        yield place, schema
    for key, inner in schema.items():
        for name, one in enumerate(inner) if isinstance(inner, list) else [(key, inner)]:
            if isinstance(one, dict):
                yield from fields(one, f"{place}/{key}" if isinstance(inner, dict) else f"{place}/{key}/{name}")


@pytest.mark.parametrize("schema", [Study, Claims])
def test_every_number_and_text_of_a_schema_has_an_upper_bound(schema: type[Study] | type[Claims]) -> None:
    found = dict(fields(schema.model_json_schema()))
    assert len(found) > 20
    bounds = {"maximum", "exclusiveMaximum", "maxLength", "enum", "const"}
    # Method checks its values itself: tests/binarization/test_method.py.
    assert [place for place, field in found.items() if not bounds & field.keys() and "/Method/" not in place] == []


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"architecture": {"vgg_small": {"width": 1e9}}}, "architecture.vgg_small.width: found 1000000000.0; .* 16"),
        ({"dataset": {"padding": 100_000}}, "dataset.padding: found 100000; .* 256"),
        ({"dataset": {"cutout": 1_000_000}}, "dataset.cutout: found 1000000; .* 256"),
        ({"dataset": {"validation": 10**12}}, "dataset.validation: found 1000000000000; .* 10000000"),
        ({"compute": {"threads": 1_000_000}}, "compute.threads: found 1000000; .* 1024"),
        ({"compute": {"checkpoint_seconds": 1e12}}, "compute.checkpoint_seconds: found 1000000000000.0; .* 1e\\+09"),
        ({"pretrain": {"epochs": 10**9}}, "pretrain.epochs: found 1000000000; .* 100000"),
        ({"finetune": {"batch_size": 10**6}}, "finetune.batch_size: found 1000000; .* 65536"),
        ({"finetune": {"evaluate_every": 10**20}}, "finetune.evaluate_every: found 1{1}0{20}; .* 100000"),
        ({"pretrain": {"learning_rate": 1e300}}, "pretrain.learning_rate: found 1e\\+300; allowed: at most 1e\\+30"),
        ({"finetune": {"distillation": {"share": 0.5, "temperature": 1e9}}}, "distillation.temperature: .* 1000"),
        ({"seeds": {"pretrain": [2**31]}}, "seeds.pretrain.0: found 2147483648; .* 2147483648"),
        ({"seeds": {"pretrain": list(range(1001))}}, "seeds.pretrain: found .*; .* at most 1000 items"),
        ({"study": "a" * 300}, "study: found 'aaa.*; .* at most 64 characters"),
        ({"ablations": ["a" * 65]}, "ablations.0: found 'aaa.*; .* at most 64 characters"),
        ({"title": "a" * 2001}, "title: found 'aaa.*; .* at most 2000 characters"),
        ({"stand_in": " "}, "stand_in: found ' '; "),
        ({"dataset": {"root": "a/" + "ä" * 128}}, "dataset.root: found a name of 256 bytes; allowed: at most 255"),
        ({"dataset": {"root": ""}}, "dataset.root: found ''; .* at least 1 character"),
    ],
    ids=str,
)
def test_what_a_machine_cannot_hold_is_refused_with_the_bound(
    changes: dict[str, Any], fragment: str, tmp_path: Path
) -> None:
    assert re.search(fragment, told(write_params(tmp_path / "params.yaml", small_settings(**changes))))


def test_an_image_folder_has_bounds_too(tmp_path: Path) -> None:
    settings = read_yaml(QUICK.with_name("imagenette.yaml"))
    for key, value in (("workers", 257), ("copy_side", 4097), ("resize", 10**6), ("image_size", {"resnet18": 10**5})):
        path = write_params(tmp_path / "params.yaml", merged(settings, {"dataset": {key: value}}))
        assert f"dataset.{key}" in told(path)

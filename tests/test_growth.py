"""A setting that is added later: no committed record becomes stale, and older study files stay valid."""

import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest

from helpers import REPOSITORY, merged
from trained_binarization.records import fingerprint
from trained_binarization.settings import read_yaml
from trained_binarization.study import FULL_PRECISION, METHOD, Study

# The class that a setting is added to: the setting's type and default.
LATER = {
    "Method": "bool = False",
    "Training": "float = 0.0",
    "Distillation": "str = 'kl'",
    "SmallImages": "int | None = None",
    "ImageFolder": "list[int] = []",
    "Architecture": "int = 1",
}
FILES = ("study.py", "binarization/method.py")

# Other values than the defaults, and whether the full-precision run, the parent, is another one then, too.
CHANGES: list[tuple[dict[str, Any], bool]] = [
    ({"method": {"later": True}}, False),
    ({"finetune": {"later": 0.5}}, False),
    ({"pretrain": {"later": 0.5}}, True),
    ({"finetune": {"distillation": {"later": "mse"}}}, False),
    ({"dataset": {"later": 3}}, True),
    ({"architecture": {"vgg_small": {"later": 2}}}, True),
]

# Run by a copy of the source that has the added settings; prints what it makes of the committed records and of a study.
PROGRAM = """
import json, sys
from pathlib import Path
from trained_binarization.records import fingerprint, run_folder, status
from trained_binarization.study import Study, load_study

states = []
for path in sorted(Path("studies").glob("*.yaml")):
    study = load_study(path)
    for run in study.runs():
        if (record := run_folder(Path("results"), study, run) / "record.json").exists():
            checksum = json.loads(record.read_text())["data_checksum"]
            states.append(status(Path("results"), study, run, checksum).state)
prints = []
for settings in json.loads(sys.stdin.read()):
    study = Study.model_validate(settings)
    prints.append({run.variant: fingerprint(study, run, "0" * 64) for run in study.runs()})
print(json.dumps({"states": states, "prints": prints}))
"""


def distilled() -> dict[str, Any]:
    """Settings of one seed that have all of the classes above but ImageFolder."""
    settings = read_yaml(REPOSITORY / "studies" / "cifar10-plus.yaml")
    return settings | {"seeds": {"pretrain": [0], "finetune": [0], "ablate": [0]}}


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a copy of the source with one more setting in each class makes of the committed records."""
    source = tmp_path_factory.mktemp("grown") / "src"
    shutil.copytree(REPOSITORY / "src", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    added = set()
    for path in (source / "trained_binarization" / name for name in FILES):
        text = path.read_text(encoding="utf-8")
        for name, setting in LATER.items():
            head = re.compile(rf'^class {name}\b.*:\n    """(?:.|\n)*?"""\n', re.MULTILINE)
            if found := head.search(text):
                text = f"{text[: found.end()]}\n    later: {setting}\n{text[found.end() :]}"
                added.add(name)
        path.write_text(text, encoding="utf-8")
    assert added == LATER.keys()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([distilled(), *(merged(distilled(), change) for change, _ in CHANGES)]),
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(source)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_no_committed_record_is_stale_after_a_setting_was_added(grown: dict[str, Any]) -> None:
    assert len(grown["states"]) >= 50
    assert set(grown["states"]) == {"done"}


def test_at_its_default_an_added_setting_changes_no_fingerprint(grown: dict[str, Any]) -> None:
    study = Study.model_validate(distilled())
    assert grown["prints"][0] == {run.variant: fingerprint(study, run, "0" * 64) for run in study.runs()}


def test_at_another_value_an_added_setting_is_another_fingerprint(grown: dict[str, Any]) -> None:
    before, *after = grown["prints"]
    for (change, of_parent), found in zip(CHANGES, after, strict=True):
        assert found[METHOD] != before[METHOD], change
        assert (found[FULL_PRECISION] != before[FULL_PRECISION]) == of_parent, change


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("cifar10", [("dataset", "cutout"), ("pretrain", "from"), ("finetune", "distillation")]),
        ("imagenette", [("dataset", "decoder"), ("pretrain", "from"), ("finetune", "distillation")]),
    ],
)
def test_an_older_study_file_without_a_later_key_means_the_default(name: str, keys: list[tuple[str, str]]) -> None:
    settings = read_yaml(REPOSITORY / "studies" / f"{name}.yaml")
    whole = Study.model_validate(settings)
    for section, key in keys:
        del settings[section][key]
    assert Study.model_validate(settings) == whole

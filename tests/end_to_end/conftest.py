"""The tiny study, made by each engine once."""

import pytest
from engine_project import Project, new_project


@pytest.fixture(scope="session")
def by_snakemake(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny study, all of it made by Snakemake. Not to be changed: copy it."""
    project = new_project(tmp_path_factory.mktemp("snakemake") / "project")
    project.snakemake()
    return project


@pytest.fixture(scope="session")
def by_dvc(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny study, all of it made by DVC. Not to be changed: copy it."""
    project = new_project(tmp_path_factory.mktemp("dvc") / "project")
    project.dvc("repro")
    return project

"""What a finished job says about itself: its job.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from vitreous.core.errors import InputError


def job_record(job_directory: Path) -> dict[str, Any]:
    """The job.yaml of a job directory. Raises InputError where there is none."""
    path = job_directory / "job.yaml"
    if not path.is_file():
        raise InputError(path, "the job's record is missing", "Run the job again")
    return dict(yaml.safe_load(path.read_text()))


def job_parameters(job_directory: Path) -> dict[str, Any]:
    """The parameters the job ran with."""
    return dict(job_record(job_directory)["parameters"])

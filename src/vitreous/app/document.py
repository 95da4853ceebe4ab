"""Write docs/jobs: one page a job, from its parameters. `make docs`; a test checks that the pages are fresh."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from pydantic.fields import FieldInfo

from vitreous.app.options import ParameterOption, show_default, type_name
from vitreous.job import Job, registry

_BLOCKS = (("main", "Parameters"), ("advanced", "Advanced parameters"))
_SHARED = "seed, threads, gpu, cpu, max_memory"


def job_page(job: type[Job]) -> str:
    """The Markdown page of a job."""
    title = inspect.cleandoc(job.__doc__ or job.help)
    writes = inspect.cleandoc(job.run.__doc__ or "")
    lines = [f"# {job.name}", "", f"{_sentence(job.help)}", "", title, "", writes, ""]
    lines += [f"Its directory in a project is `{job.folder}/jobNNN`; RELION's type is `{job.relion_type}`.", ""]
    for block, heading in _BLOCKS:
        fields = {
            name: info
            for name, info in job.Parameters.model_fields.items()
            if ParameterOption(name, info).block == block
        }
        if fields:
            lines += [f"## {heading}", "", "| option | type | default | unit | what |", "|---|---|---|---|---|"]
            lines += [_row(name, info) for name, info in fields.items()]
            lines.append("")
    if job.shared:
        lines += ["Several processes can share the work: `--ranks N` on one machine, torchrun or srun on several.", ""]
    lines += [f"Every job also takes {_SHARED}, `--o`, `--project`, `--continue` and `--dump-yaml`.", ""]
    return "\n".join(lines)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _row(name: str, info: FieldInfo) -> str:
    option = ParameterOption(name, info)
    spellings = [one for one in option.spellings if "_" not in one or one.replace("_", "-") not in option.spellings]
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    default = "**required**" if info.is_required() else show_default(info)
    kind = type_name(info.annotation).replace("|", "\\|").strip("[]").lower()
    cells = (", ".join(f"`{one}`" for one in spellings), kind, default, str(extra.get("unit") or ""))
    what = (info.description or "").replace("|", "\\|")
    return "| " + " | ".join((*cells, what)) + " |"


def index_page(jobs: dict[str, type[Job]]) -> str:
    """The list of the jobs."""
    lines = ["# Jobs", "", "Generated from the jobs' parameters by `make docs`.", "", "| job | what |", "|---|---|"]
    lines += [f"| [{name}]({name}.md) | {job.help} |" for name, job in jobs.items()]
    return "\n".join([*lines, ""])


def pages() -> dict[str, str]:
    """All pages by file name."""
    jobs = registry()
    return {"README.md": index_page(jobs), **{f"{name}.md": job_page(job) for name, job in jobs.items()}}


def main(directory: str) -> None:
    """Write the pages, and remove those of jobs that are gone."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = pages()
    for name, text in wanted.items():
        (folder / name).write_text(text, encoding="utf-8")
    for path in folder.glob("*.md"):
        if path.name not in wanted:
            path.unlink()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "docs/jobs")

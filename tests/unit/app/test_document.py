from __future__ import annotations

import re
from pathlib import Path

import pytest

from vitreous.app.document import pages

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGES = pages()


@pytest.mark.parametrize("name", sorted(PAGES))
def test_pages_are_fresh(name: str) -> None:
    path = DOCS / "jobs" / name
    assert path.exists(), "run `make docs`"
    assert path.read_text(encoding="utf-8") == PAGES[name], f"{name} is stale: run `make docs`"


def test_no_page_of_a_job_that_is_gone() -> None:
    assert {path.name for path in (DOCS / "jobs").glob("*.md")} == set(PAGES)


def test_the_library_page_works_as_it_stands() -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / "library.md").read_text(), flags=re.DOTALL))
    assert code.count("import") > 5
    exec(compile(code, "docs/library.md", "exec"), {})


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"

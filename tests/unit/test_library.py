from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize("name", ["maps", "ctf", "geometry", "simulation", "motion", "particles"])
def test_the_library_modules_hold_what_they_promise(name: str) -> None:
    module = importlib.import_module(f"vitreous.{name}")
    assert list(module.__all__) == sorted(module.__all__)
    for item in module.__all__:
        assert getattr(module, item).__doc__

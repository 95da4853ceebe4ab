from __future__ import annotations

import torch

from vitreous.runtime.workspace import Workspace, Workspaces


def test_the_same_memory_comes_back_where_it_is_large_enough() -> None:
    workspace = Workspace()
    first = workspace.array("frames", (4, 10))
    smaller = workspace.array("frames", (3, 5))
    assert smaller.shape == (3, 5)
    assert smaller.is_contiguous()
    assert smaller.data_ptr() == first.data_ptr()
    larger = workspace.array("frames", (100, 7))
    assert larger.shape == (100, 7)
    assert workspace.array("frames", (4, 10)).data_ptr() == larger.data_ptr()


def test_names_do_not_share() -> None:
    workspace = Workspace()
    one, other = workspace.array("one", (8,)), workspace.array("other", (8,))
    one.fill_(1.0)
    other.fill_(2.0)
    assert bool((one == 1.0).all())


def test_what_is_lent_at_once_is_apart_and_comes_back() -> None:
    workspaces = Workspaces()
    with workspaces.lend() as first:
        with workspaces.lend() as second:
            assert first is not second
        with workspaces.lend() as again:
            assert again is second
    with workspaces.lend() as last:
        assert last is first


def test_a_failed_item_gives_its_workspace_back() -> None:
    workspaces = Workspaces()
    try:
        with workspaces.lend() as first:
            raise ValueError
    except ValueError:
        pass
    with workspaces.lend() as again:
        assert again is first
    assert torch.is_tensor(again.array("frames", (1,)))

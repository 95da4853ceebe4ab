"""Our point groups against the matrices RELION prints."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest

from vitreous.core import symmetry

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(shutil.which("relion_refine") is None, reason="relion is not installed"),
]


def relions_matrices(name):
    command = ["relion_refine", "--sym", name, "--print_symmetry_ops"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    starts = [i for i, line in enumerate(lines) if re.match(r"\s*R\(\d+\)=", line)]
    return np.array([[[float(v) for v in lines[i + j].split()] for j in (1, 2, 3)] for i in starts])


@pytest.mark.parametrize("name", ["C1", "C2", "C3", "C7", "D2", "D3", "D7", "T", "O", "I", "I1", "I2", "I3", "I4"])
def test_group_is_relions(name):
    theirs, ours = relions_matrices(name), symmetry.symmetry_matrices(name).numpy()
    assert len(theirs) == len(ours)
    difference = np.abs(theirs[:, None] - ours[None]).max((-2, -1))
    assert difference.min(0).max() < 1e-4  # RELION prints five digits
    assert difference.min(1).max() < 1e-4

from __future__ import annotations

import pytest
from scipy import stats

from vitreous.methods.motion.outlying_patches import _f_above


@pytest.mark.parametrize("free", [3, 15, 200])
@pytest.mark.parametrize("probability", [0.3, 1e-3, 1e-9])
def test_the_f_law_is_scipys(free: int, probability: float) -> None:
    assert _f_above(probability, 2, 2 * free) == pytest.approx(stats.f.isf(probability, 2, 2 * free), rel=1e-6)

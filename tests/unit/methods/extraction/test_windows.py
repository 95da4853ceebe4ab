from __future__ import annotations

import numpy as np
import pytest
import torch

from vitreous.methods.extraction.windows import cut_windows, share_inside, touches_micrograph, window_centres


def numbered(height: int, width: int) -> torch.Tensor:
    return torch.arange(height * width, dtype=torch.float32).reshape(height, width)


def test_centre_pixel_is_at_index_half_the_box():
    micrograph = numbered(40, 50)
    centres = window_centres(np.array([[23.9, 11.2], [30.0, 20.0]]))
    for box in (8, 9):
        windows = cut_windows(micrograph, centres, box)
        assert windows[0, box // 2, box // 2] == micrograph[11, 23]
        assert windows[1, box // 2, box // 2] == micrograph[20, 30]


def test_windows_equal_slices():
    micrograph = numbered(40, 50)
    windows = cut_windows(micrograph, np.array([[20, 25]]), 16)
    assert torch.equal(windows[0], micrograph[12:28, 17:33])


def test_edge_pixels_are_repeated():
    micrograph = numbered(40, 50)
    window = cut_windows(micrograph, np.array([[2, 48]]), 16)[0]
    padded = np.pad(micrograph.numpy(), 16, mode="edge")
    np.testing.assert_array_equal(window.numpy(), padded[2 + 8 : 2 + 24, 48 + 8 : 48 + 24])


def test_share_inside():
    centres = np.array([[20, 20], [0, 20], [0, 0], [-30, 20], [39, 20]])
    np.testing.assert_allclose(share_inside(centres, 16, (40, 50)), [1.0, 0.5, 0.25, 0.0, 9 / 16])
    assert touches_micrograph(centres, 16, (40, 50)).tolist() == [True, True, True, False, True]


def test_a_window_outside_is_refused():
    with pytest.raises(ValueError, match="wholly outside"):
        cut_windows(numbered(40, 50), np.array([[-30, 20]]), 16)

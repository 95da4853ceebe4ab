from __future__ import annotations

import torch
from hypothesis import example, given
from hypothesis import strategies as st

from vitreous.core import rotations

angle = st.floats(-360, 360, allow_nan=False)


@given(angle, angle, angle)
@example(0.0, 180.0, 1.0)
@example(20.0, 180.0, 1.0)
@example(20.0, 0.0, 1.0)
@example(20.0, -180.0, 30.0)
def test_euler_round_trip(rot, tilt, psi):
    a = rotations.euler_to_matrix(*torch.tensor([rot, tilt, psi], dtype=torch.float64))
    b = rotations.euler_to_matrix(*rotations.matrix_to_euler(a))
    assert torch.allclose(a, b, atol=1e-6)


def test_matrix_is_relions():
    rot, tilt, psi = torch.tensor([30.0, 50.0, 70.0], dtype=torch.float64)
    r, t, p = (torch.deg2rad(x) for x in (rot, tilt, psi))
    a = rotations.euler_to_matrix(rot, tilt, psi)
    assert torch.allclose(a[2], torch.stack([t.sin() * r.cos(), t.sin() * r.sin(), t.cos()]))
    assert torch.allclose(a[:, 2], torch.stack([-p.cos() * t.sin(), p.sin() * t.sin(), t.cos()]))
    assert torch.allclose(a @ a.T, torch.eye(3, dtype=torch.float64))


@given(st.floats(1e-4, 179.9), st.integers(0, 1000))
def test_angular_distance(degrees, seed):
    g = torch.Generator().manual_seed(seed)
    a = rotations.random_rotations(1, g)[0]
    axis = torch.randn(3, generator=g, dtype=torch.float64)
    turn = rotations.axis_angle_to_matrix(axis, torch.tensor(degrees, dtype=torch.float64))
    assert abs(rotations.angular_distance(turn @ a, a).item() - degrees) < 1e-6 * max(1, degrees)

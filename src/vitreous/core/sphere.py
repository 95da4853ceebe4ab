"""HEALPix: equal-area pixels on the sphere, nested numbering.

Written from Gorski, Hivon, Banday, Wandelt, Hansen, Reinecke and Bartelmann (2005) Astrophys. J. 622, 759,
sections 4 and 5. Order o has n_side = 2^o and 12 * 4^o pixels; pixel p of order o holds the pixels 4p .. 4p+3 of
order o+1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Southernmost corner of each of the twelve base pixels: ring in units of n_side, longitude in units of 45 degrees.
_FACE_RING = (2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4)
_FACE_LONGITUDE = (1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7)
_MAX_ORDER = 29


def n_pixels(order: int) -> int:
    """Number of pixels on the whole sphere: 12 * 4^order. Raises ValueError outside 0..29."""
    if not 0 <= order <= _MAX_ORDER:
        raise ValueError(f"HEALPix order {order} is not in 0..{_MAX_ORDER}")
    return 12 * 4**order


def pixel_angles(order: int, pixels: Int[Tensor, "n"] | None = None) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Longitude and colatitude in degrees (float64) of pixel centres; all of the order's pixels by default.

    RELION's rot is the longitude, its tilt the colatitude.
    """
    total = n_pixels(order)
    if pixels is None:
        pixels = torch.arange(total)
    pixels = pixels.to(torch.int64)
    n_side = 1 << order
    face = pixels >> (2 * order)
    inside = pixels & ((1 << (2 * order)) - 1)
    x, y = _even_bits(inside), _even_bits(inside >> 1)
    face_ring = torch.tensor(_FACE_RING, device=pixels.device)[face]
    face_longitude = torch.tensor(_FACE_LONGITUDE, device=pixels.device)[face]
    ring = face_ring * n_side - x - y - 1  # 1 (north) .. 4 n_side - 1 (south)
    north, south = ring < n_side, ring > 3 * n_side
    in_ring = torch.where(north, ring, torch.where(south, 4 * n_side - ring, torch.full_like(ring, n_side)))
    cap = 1.0 - in_ring.to(torch.float64) ** 2 / (3.0 * n_side**2)
    belt = (2 * n_side - ring).to(torch.float64) * (2.0 / (3.0 * n_side))
    z = torch.where(north, cap, torch.where(south, -cap, belt))
    # Along a ring longitude goes with x - y, in steps of half a pixel: 45/in_ring degrees.
    longitude = torch.remainder((face_longitude * in_ring + x - y).to(torch.float64) * 45.0 / in_ring, 360.0)
    return longitude, torch.rad2deg(torch.acos(z.clamp(-1.0, 1.0)))


def pixel_directions(order: int, pixels: Int[Tensor, "n"] | None = None) -> Float[Tensor, "n 3"]:
    """Unit vectors (x, y, z), float64, of pixel centres; all of the order's pixels by default."""
    longitude, colatitude = pixel_angles(order, pixels)
    return angles_to_direction(longitude, colatitude)


def angles_to_direction(longitude: Float[Tensor, "n"], colatitude: Float[Tensor, "n"]) -> Float[Tensor, "n 3"]:
    """Degrees to unit vectors (x, y, z)."""
    phi, theta = torch.deg2rad(longitude), torch.deg2rad(colatitude)
    return torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], -1)


def child_pixels(pixels: Int[Tensor, "n"], generations: int = 1) -> Int[Tensor, "n children"]:
    """The 4^generations pixels that each pixel is divided into, `generations` orders finer."""
    count = 4**generations
    return pixels[:, None] * count + torch.arange(count, device=pixels.device)


def _even_bits(values: Tensor) -> Tensor:
    """Gather bits 0, 2, 4, ... of each number into one (Morton decoding)."""
    values = values & 0x5555555555555555
    for shift, mask in (
        (1, 0x3333333333333333),
        (2, 0x0F0F0F0F0F0F0F0F),
        (4, 0x00FF00FF00FF00FF),
        (8, 0x0000FFFF0000FFFF),
        (16, 0x00000000FFFFFFFF),
    ):
        values = (values | (values >> shift)) & mask
    return values

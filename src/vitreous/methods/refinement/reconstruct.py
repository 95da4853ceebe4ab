"""From sums of Fourier slices to a density: symmetry, Wiener division, gridding, back to real space.

Scheres (2012) J. Struct. Biol. 180, 519, section 2.3; gridding weights: Pipe and Menon (1999) Magn. Reson. Med. 41,
179.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.core.masks import soft_sphere
from vitreous.core.symmetry import symmetry_matrices
from vitreous.kernels.backproject import VolumeAccumulator
from vitreous.kernels.project import interpolation_envelope
from vitreous.kernels.symmetrise import symmetrise

# A coefficient that hardly any slice came near is divided by no less than this share of its shell's mean weight.
_WEIGHT_FLOOR = 1e-3
_GRIDDING_FLOOR = 1e-6
# Kaiser-Bessel window of the gridding weights: radius in oversampled Fourier pixels and shape, as is customary.
_WINDOW_RADIUS, _WINDOW_ALPHA = 1.9, 15.0


@dataclass(frozen=True)
class Reconstruction:
    """How sums become a map.

    tau2_fudge: multiplies tau2 (RELION's T). gridding_iterations: rounds of gridding weights; 0 divides by the
    weights as they are (RELION's skip_gridding), which is hardly worse and much faster. mask_corners: fade out what
    lies beyond the sphere that fits the box, where slices say nothing.
    """

    tau2_fudge: float = 1.0
    gridding_iterations: int = 0
    mask_corners: bool = True


def complete(accumulator: VolumeAccumulator, symmetry: str = "C1") -> VolumeAccumulator:
    """A copy of the sums made Hermitian and symmetric: what every following step needs."""
    out = replace(accumulator, data=accumulator.data.clone(), weight=accumulator.weight.clone())
    out.data[:, :, 0] += accumulator.data[:, :, 0].flip((0, 1)).conj()
    out.weight[:, :, 0] += accumulator.weight[:, :, 0].flip((0, 1))
    symmetrise(out, symmetry_matrices(symmetry))
    return out


def shell_weight(completed: VolumeAccumulator) -> Float[Tensor, "n_shells"]:
    """Mean inverse noise variance of the map's coefficients in each shell 0 .. box//2 (float64); 0 beyond the radius.

    The weights of `completed` lie scattered over padding^3 points for each coefficient of the unpadded map.
    """
    shells = _shells(completed)
    total, count = _shell_totals(completed.weight, shells, completed.box)
    return total / count.clamp(min=1.0) * completed.padding**3


def reconstruct(
    completed: VolumeAccumulator,
    tau2: Float[Tensor, "n_shells"] | None = None,
    options: Reconstruction = Reconstruction(),
) -> Float[Tensor, "box box box"]:
    """The density whose slices fit the sums best, float32.

    completed: from `complete`. tau2: prior power of the map's transform by shell (None: no prior, no regularisation);
    shells where it is 0 come out empty.
    """
    shells = _shells(completed)
    weight = completed.weight + _prior_precision(completed, tau2, options, shells)
    if options.gridding_iterations:
        inverse = _gridding_weights(completed, weight, options.gridding_iterations)
    else:
        total, count = _shell_totals(weight, shells, completed.box)
        floor = (total / count.clamp(min=1.0) * _WEIGHT_FLOOR).to(weight.dtype)
        floor = torch.nn.functional.pad(floor, [0, 1])
        inverse = 1.0 / torch.maximum(weight, floor[shells]).clamp(min=torch.finfo(weight.dtype).tiny * 1e8)
    known = (shells <= completed.box // 2) & (completed.weight > 0)
    if tau2 is not None:
        known &= torch.nn.functional.pad(tau2.to(weight), [0, completed.box // 2 + 2 - len(tau2)])[shells] > 0
    density = to_density(torch.where(known, completed.data * inverse, 0.0), completed.box, completed.padding)
    return finish(density, completed.padding, options.mask_corners)


def finish(density: Float[Tensor, "box box box"], padding: int, mask_corners: bool) -> Float[Tensor, "box box box"]:
    """Undo what inserting by linear interpolation did to the density, and fade out the corners."""
    box = density.shape[-1]
    envelope = interpolation_envelope(box, padding, 3, device=density.device)
    density = density / envelope.to(density.dtype)
    if mask_corners:
        density = density * soft_sphere(box, box / 2 - 3, edge=3.0, ndim=3, device=density.device, dtype=density.dtype)
    return density.to(torch.float32)


def join_low_resolution(
    first: VolumeAccumulator, second: VolumeAccumulator, max_shell: int
) -> tuple[VolumeAccumulator, VolumeAccumulator]:
    """Let two halves share their sums up to max_shell, so that they cannot drift apart in orientation.

    RELION's low_resol_join_halves (40 A): the FSC is not used below that resolution.
    """
    low = _shells(first) <= max_shell
    joined = []
    for half in (first, second):
        data = torch.where(low, 0.5 * (first.data + second.data), half.data)
        weight = torch.where(low, 0.5 * (first.weight + second.weight), half.weight)
        joined.append(replace(half, data=data, weight=weight))
    return joined[0], joined[1]


def fourier_order(
    completed: VolumeAccumulator,
) -> tuple[Complex[Tensor, "padded padded half"], Float[Tensor, "padded padded half"]]:
    """Data and weights on the whole padded grid in FFT order, half along x: what other programs read."""
    padded = completed.box * completed.padding
    half = padded // 2 + 1
    out = []
    for values in (completed.data, completed.weight):
        values = _wrap(_wrap(values, 0, padded), 1, padded)[:, :, :half]
        out.append(torch.nn.functional.pad(values, [0, half - values.shape[2]]))
    return out[0], out[1]


def to_density(data: Float[Tensor, "size size half"], box: int, padding: int) -> Float[Tensor, "box box box"]:
    """Inverse transform of a centred, oversampled half volume, cropped to the box.

    Each axis is cropped as soon as it is transformed, so that most of the padded box is never made.
    """
    padded = box * padding
    for dim in (0, 1):
        data = _crop(torch.fft.ifft(_wrap(data, dim, padded), dim=dim), dim, box)
    stored = min(data.shape[2], padded // 2 + 1)
    return _crop(torch.fft.irfft(data[:, :, :stored], n=padded, dim=2), 2, box)


def _wrap(data: Tensor, dim: int, padded: int) -> Tensor:
    """Centred frequencies of one axis to FFT order in `padded` points; what lies beyond Nyquist is left out."""
    reach = min(data.shape[dim] // 2, padded // 2 - 1)
    centre = data.shape[dim] // 2
    shape = list(data.shape)
    shape[dim] = padded - 2 * reach - 1
    positive = data.narrow(dim, centre, reach + 1)
    negative = data.narrow(dim, centre - reach, reach)
    return torch.cat([positive, data.new_zeros(shape), negative], dim)


def _crop(data: Tensor, dim: int, box: int) -> Tensor:
    """Points -box//2 .. box//2 - 1 of an axis in FFT order, centred."""
    half = box // 2
    return torch.cat([data.narrow(dim, data.shape[dim] - half, half), data.narrow(dim, 0, box - half)], dim)


def _shells(accumulator: VolumeAccumulator) -> Tensor:
    """Shell (of the unpadded box) of each grid point; box//2 + 1 for all that lie beyond the radius or Nyquist."""
    size, half = accumulator.data.shape[1], accumulator.data.shape[2]
    axis = (torch.arange(size, device=accumulator.data.device, dtype=torch.float32) - size // 2).square()
    squares = axis[:, None, None] + axis[:, None] + axis[size // 2 : size // 2 + half]
    shells = torch.floor(squares.sqrt() / accumulator.padding + 0.5 + 1e-6).to(torch.int64)
    beyond = accumulator.box // 2 + 1
    return torch.where(shells <= min(accumulator.max_radius, accumulator.box // 2), shells, beyond)


def _shell_totals(values: Tensor, shells: Tensor, box: int) -> tuple[Tensor, Tensor]:
    """Sum over each shell of the full (Hermitian) volume and number of points in it, float64."""
    n = box // 2 + 1
    multiplicity = torch.full((values.shape[2],), 2.0, dtype=torch.float64, device=values.device)
    multiplicity[0] = 1.0
    every = multiplicity.expand(values.shape).reshape(-1)
    flat = shells.reshape(-1)
    total = torch.bincount(flat, values.reshape(-1).to(torch.float64) * every, minlength=n + 1)
    count = torch.bincount(flat, every, minlength=n + 1)
    return total[:n], count[:n]


def _prior_precision(
    completed: VolumeAccumulator, tau2: Tensor | None, options: Reconstruction, shells: Tensor
) -> Tensor:
    """1 / (T tau2) at each grid point, shared out like the weights over the oversampled grid."""
    if tau2 is None:
        return torch.zeros_like(completed.weight)
    n = completed.box // 2 + 1
    prior = torch.zeros(n + 1, dtype=torch.float64, device=completed.weight.device)
    given = tau2[:n].to(prior)
    safe = (options.tau2_fudge * given).clamp(min=1e-300)
    prior[: len(given)] = torch.where(given > 0, 1.0 / safe, 0.0) / completed.padding**3
    return prior.clamp(max=1e30).to(completed.weight.dtype)[shells]


def _gridding_weights(completed: VolumeAccumulator, weight: Tensor, iterations: int) -> Tensor:
    """Weights that, times the sampling density and blurred with the window, are one everywhere.

    The blur is a product in real space with the window's transform.
    """
    padded = completed.box * completed.padding
    window = _window_transform(padded, weight.device)
    inside = _shells(completed) <= completed.box // 2
    inverse = inside.to(weight.dtype)
    for _ in range(iterations):
        blurred = _blur(weight * inverse, padded, window)
        inverse = torch.where(inside, inverse / blurred.abs().clamp(min=_GRIDDING_FLOOR), 0.0)
    return inverse


def _blur(values: Tensor, padded: int, window: Tensor) -> Tensor:
    """Convolve a centred half volume with the window, by way of real space."""
    size, half = values.shape[1], values.shape[2]
    wrapped = _wrap(_wrap(values.to(torch.complex64), 0, padded), 1, padded)
    real = torch.fft.irfftn(wrapped[:, :, : padded // 2 + 1], s=(padded,) * 3)
    blurred = torch.fft.rfftn(real * window).real
    centred = (torch.arange(size, device=values.device) - size // 2).remainder(padded)
    blurred = blurred[centred][:, centred]
    kept = min(half, blurred.shape[2])
    return torch.nn.functional.pad(blurred[:, :, :kept], [0, half - kept])


def _window_transform(padded: int, device: torch.device) -> Tensor:
    """Transform of the Kaiser-Bessel window (order 0) on the padded box in FFT order, 1 at the origin.

    Lewitt (1990) J. Opt. Soc. Am. A 7, 1834: sinh(sqrt(alpha^2 - u^2)) / u' like, in three dimensions.
    """
    axis = torch.fft.fftfreq(padded, dtype=torch.float64, device=device).square()
    radius = (axis[:, None, None] + axis[:, None] + axis).sqrt()
    u = 2.0 * torch.pi * _WINDOW_RADIUS * radius
    s2 = _WINDOW_ALPHA**2 - u.square()
    s = s2.abs().sqrt().clamp(min=1e-9)
    # Order 0 in 3D: proportional to I_{3/2}(s) / s^{3/2}, or J_{3/2} beyond alpha; half orders are elementary.
    inner = (torch.cosh(s) - torch.sinh(s) / s) / s.square()
    outer = (torch.sin(s) / s - torch.cos(s)) / s.square()
    values = torch.where(s2 >= 0, inner, outer)
    return (values / values[0, 0, 0]).to(torch.float32)

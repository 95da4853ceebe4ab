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
from vitreous.core.padded_fourier import to_density, wrap
from vitreous.core.symmetry import symmetry_matrices
from vitreous.kernels.backproject import VolumeAccumulator
from vitreous.kernels.project import interpolation_envelope
from vitreous.kernels.shells import divide, shell_totals, shells_of
from vitreous.kernels.symmetrise import symmetrise

# A coefficient that hardly any slice came near is divided by no less than this share of its shell's mean weight.
_WEIGHT_FLOOR = 1e-3
_GRIDDING_FLOOR = 1e-6
_TINY = torch.finfo(torch.float32).tiny * 1e8
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
    total, count = shell_totals(completed)
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
    prior = _prior_precision(completed, tau2, options)
    used = torch.ones(len(prior), dtype=torch.bool) if tau2 is None else _as_long(tau2, len(prior)) > 0
    if options.gridding_iterations:
        quotient = _gridded(completed, prior, used, options.gridding_iterations)
    else:
        total, count = shell_totals(completed)
        mean = total / count.clamp(min=1.0) + prior
        quotient = divide(completed, prior, (mean * _WEIGHT_FLOOR).clamp(min=_TINY), used)
    return finish(to_density(quotient, completed.box), completed.padding, options.mask_corners)


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
    low = shells_of(_within(first, max_shell)) <= max_shell
    joined = []
    for half in (first, second):
        out = replace(half, data=half.data.clone(), weight=half.weight.clone())
        inner, one, other = (_within(sums, max_shell) for sums in (out, first, second))
        inner.data.copy_(torch.where(low, 0.5 * (one.data + other.data), inner.data))
        inner.weight.copy_(torch.where(low, 0.5 * (one.weight + other.weight), inner.weight))
        joined.append(out)
    return joined[0], joined[1]


def _within(sums: VolumeAccumulator, max_shell: int) -> VolumeAccumulator:
    """A view of the sums out to a shell."""
    reach = min(sums.centre, sums.padding * (max_shell + 1))
    here = slice(sums.centre - reach, sums.centre + reach + 1)
    data, weight = (values[here, here, : reach + 1] for values in (sums.data, sums.weight))
    return replace(sums, data=data, weight=weight, max_radius=min(max_shell, sums.max_radius))


def fourier_order(
    completed: VolumeAccumulator,
) -> tuple[Complex[Tensor, "padded padded half"], Float[Tensor, "padded padded half"]]:
    """Data and weights on the whole padded grid in FFT order, half along x: what other programs read."""
    padded = completed.box * completed.padding
    half = padded // 2 + 1
    out = []
    for values in (completed.data, completed.weight):
        values = wrap(wrap(values, 0, padded), 1, padded)[:, :, :half]
        out.append(torch.nn.functional.pad(values, [0, half - values.shape[2]]))
    return out[0], out[1]


def _prior_precision(
    completed: VolumeAccumulator, tau2: Tensor | None, options: Reconstruction
) -> Float[Tensor, "n_shells"]:
    """1 / (T tau2) by shell, shared out like the weights over the oversampled grid."""
    n = completed.box // 2 + 1
    if tau2 is None:
        return torch.zeros(n, dtype=torch.float64)
    given = _as_long(tau2, n)
    safe = (options.tau2_fudge * given).clamp(min=1e-300)
    return (torch.where(given > 0, 1.0 / safe, 0.0) / completed.padding**3).clamp(max=1e30)


def _as_long(curve: Tensor, n: int) -> Tensor:
    """A curve by shell as float64, cut or filled up with zeros."""
    return torch.nn.functional.pad(curve[:n].to(torch.float64), [0, max(0, n - len(curve))])


def _gridded(completed: VolumeAccumulator, prior: Tensor, used: Tensor, iterations: int) -> Tensor:
    """Data times weights that, times the sampling density and blurred with the window, are one everywhere.

    The blur is a product in real space with the window's transform. In FFT order along z and y, as from `divide`.
    """
    padded = completed.box * completed.padding
    window = _window_transform(padded, completed.weight.device)
    shells = shells_of(completed)
    inside = shells <= completed.box // 2
    weight = completed.weight + torch.nn.functional.pad(prior, [0, 1]).to(completed.weight)[shells]
    inverse = inside.to(weight.dtype)
    for _ in range(iterations):
        blurred = _blur(weight * inverse, padded, window)
        inverse = torch.where(inside, inverse / blurred.abs().clamp(min=_GRIDDING_FLOOR), 0.0)
    known = torch.nn.functional.pad(used, [0, 1]).to(shells.device)[shells] & (completed.weight > 0)
    product = torch.where(known, completed.data * inverse, 0.0)
    return wrap(wrap(product, 0, padded), 1, padded)[:, :, : padded // 2 + 1]


def _blur(values: Tensor, padded: int, window: Tensor) -> Tensor:
    """Convolve a centred half volume with the window, by way of real space."""
    size, half = values.shape[1], values.shape[2]
    wrapped = wrap(wrap(values.to(torch.complex64), 0, padded), 1, padded)
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

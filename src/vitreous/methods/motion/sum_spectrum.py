"""The power spectrum of a movie's sums of a few frames, from which the CTF is fitted."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.kernels.sums_of_spectra import add_power

_FINEST_SPECTRUM = 1.4  # A: power spectra end at 2.8 A, beyond which no Thon ring is seen in a movie


class SumSpectrum:
    """Power spectra of sums of a few frames, added up and averaged into the bins of a small box.

    Frames are summed to a few e/A^2 first, as RELION does: enough signal for the low-order rings, too short for
    what motion is left to blur the high ones. shape (ny, nx) px and pixel_size (A) are of the sums. factors (ny, 1) and
    (nx//2+1,): what their transforms are still to be multiplied by.
    """

    def __init__(
        self, shape: tuple[int, int], pixel_size: float, box: int, factors: tuple[Tensor, Tensor] | None = None
    ) -> None:
        self.shape = shape
        self._factors = factors
        self.pixel_size = max(pixel_size, _FINEST_SPECTRUM)
        whole = min(shape) * pixel_size / self.pixel_size
        self.box = min(box, 2 * int(whole / 2))
        extent = self.box * self.pixel_size
        ky = np.rint(np.fft.fftfreq(shape[0], pixel_size) * extent).astype(np.int64)
        kx = np.rint(np.fft.rfftfreq(shape[1], pixel_size) * extent).astype(np.int64)
        # Two runs of rows: the frequencies from zero up, and from below up to zero.
        inside, middle = np.abs(ky) <= self.box // 2, (shape[0] + 1) // 2
        self._runs = (slice(0, int(inside[:middle].sum())), slice(shape[0] - int(inside[middle:].sum()), shape[0]))
        self._columns = int((kx <= self.box // 2).sum())
        self._ky = np.concatenate([ky[run] for run in self._runs]) % self.box
        self._kx = kx[: self._columns]
        self._power: Tensor | None = None
        self._pixels = shape[0] * shape[1]

    def add(self, transform: Complex[Tensor, "height half"]) -> None:
        """Add the power of the rfft of one sum."""
        if self._power is None:
            self._power = torch.zeros(len(self._ky), self._columns, device=transform.device)
        add_power(self._power, transform, self._runs)

    def finish(self) -> Float[Tensor, "box box"]:
        """Root mean power of each bin over the number of pixels, the whole plane with its centre at box//2."""
        assert self._power is not None
        half, device = self.box // 2 + 1, self._power.device
        if self._factors is not None:
            along_y, along_x = self._factors
            self._power *= torch.cat([along_y[run] for run in self._runs]).square()
            self._power *= along_x[: self._columns].square()
        rows, columns = torch.from_numpy(self._ky).to(device), torch.from_numpy(self._kx).to(device)
        by_row = torch.zeros(self.box, self._columns, device=device).index_add_(0, rows, self._power)
        total = torch.zeros(self.box, half, device=device).index_add_(1, columns, by_row)
        counts = torch.bincount(rows, minlength=self.box)[:, None] * torch.bincount(columns, minlength=half)
        amplitude = (total / counts.clamp(min=1)).sqrt() / self._pixels
        return _whole_plane(amplitude)


def _whole_plane(half: Float[Tensor, "box half"]) -> Float[Tensor, "box box"]:
    """The full plane, zero frequency at box//2, of a quantity that is the same at k and -k."""
    box = half.shape[0]
    mirrored = half.roll(-1, 0).flip(0)[:, 1 : (box + 1) // 2].flip(1)
    full = torch.cat([half, mirrored], dim=1)
    return torch.fft.fftshift(full)

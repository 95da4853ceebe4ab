"""A prior that follows the map: each place is damped by the signal-to-noise ratio it has, not by the shell's average.

RELION's prior is one number a shell: a well-ordered core is damped for the sake of a disordered domain and of empty
solvent, which in turn keep noise that particles are then aligned to. Here the SNR of each band of shells is measured
around each voxel by how well one half-map predicts the other (`kernels.local_signal`), and the Wiener filter is made
with it. Ramlaul, Palmer, Nakane, Aylett (2020) J. Struct. Biol. 211, 107545 filter halves locally with the same aim;
the factor that predicts the other half best is the cross-validated one of Punjani, Zhang, Fleet (2020) Nat. Methods
17, 1214, found here in closed form.

The halves share how strong the damping is around a place, a field with no detail finer than the window, not their
densities. As the damping follows where the halves agree, about one part in as many as there are independent values in
a window of one half's noise shows in the other's map: some 1% in amplitude, which is why the window is no smaller.
Agreement by chance would let noise through in the same places of both, so what two noise maps would reach is taken
off. docs/regularisation.md has what this does to half-map and true FSC.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.kernels.local_signal import Band, LocalSignal, bands, damp_bands, local_fsc
from vitreous.methods.refinement.reconstruct import reconstruct
from vitreous.methods.refinement.regularise import Evidence

_MOST_FSC = 0.999


@dataclass(frozen=True)
class AdaptivePrior:
    """The regulariser (see `regularise.Regulariser`).

    reach: standard deviation of the window, in wavelengths of a band. chance: agreement below this many standard
    deviations of that of pure noise counts as none. exact: the float64 reference (slow, for tests).
    """

    reach: float = 1.0
    chance: float = 2.0
    exact: bool = False

    def __call__(self, evidence: Evidence) -> list[Float[Tensor, "box box box"]]:
        """Maps of the evidence's sums, each place damped by its own SNR."""
        half_maps = evidence.half_maps.to(torch.float64 if self.exact else torch.float32)
        every = bands(evidence.sums[0].max_radius)
        found = [(s.band, self.signal_to_noise(s)) for s in local_fsc(half_maps, every, reach=self.reach)]
        return [self._regularised(evidence, index, found) for index in range(len(evidence.sums))]

    def signal_to_noise(self, found: LocalSignal) -> Float[Tensor, "side side side"]:
        """SNR of one half-map from the local FSC, that of chance taken off.

        The non-negative garrote (Breiman 1995, Technometrics 37, 373): x - c^2/x above c, 0 below; what is far above
        chance is left as it is.
        """
        limit = self.chance**2 * found.variance
        values = found.values
        fsc = (values - limit / values.clamp(min=limit**0.5)).clamp(0.0, _MOST_FSC)
        fsc = torch.where(values > 0, fsc, 0.0)
        return fsc / (1.0 - fsc)

    def _regularised(
        self, evidence: Evidence, index: int, found: list[tuple[Band, Tensor]]
    ) -> Float[Tensor, "box box box"]:
        """First the Wiener filter of the best place in each band, then each place damped as much more as it needs.

        The first knows the weight of each coefficient (views that are missing), the second the place.
        """
        sums, fudge = evidence.sums[index], evidence.how.tau2_fudge
        n_halves = 2.0 if evidence.whole else 1.0
        best = [max(1e-3, n_halves * float(snr.max())) for _, snr in found]
        shells = torch.arange(sums.box // 2 + 1, dtype=torch.float64)
        ceiling = sum(level * band.at(shells) for level, (band, _) in zip(best, found, strict=True))
        density = reconstruct(sums, ceiling * evidence.sigma2[index], evidence.how)
        gains = []
        for level, (band, snr) in zip(best, found, strict=True):
            local = fudge * n_halves * snr
            gains.append((band, local / (1.0 + local) * ((1.0 + fudge * level) / (fudge * level))))
        if self.exact:
            density = density.to(torch.float64)
        damped = damp_bands(torch.fft.rfftn(density), gains, sums.box)
        return torch.fft.irfftn(damped, s=(sums.box,) * 3).to(torch.float32)

"""The contrast transfer function as a library: its values, and fits to power spectra."""

from vitreous.core.ctf import Defocus, Microscope, ctf, electron_wavelength, phase_aberration
from vitreous.core.dose import dose_weights
from vitreous.methods.ctf_fitting.diagnostic import diagnostic_image
from vitreous.methods.ctf_fitting.fit import CtfFit, fit_ctf
from vitreous.methods.ctf_fitting.search import SearchSettings
from vitreous.methods.ctf_fitting.spectrum import Spectrum, spectrum_from_amplitudes, spectrum_of_micrograph

__all__ = [
    "CtfFit",
    "Defocus",
    "Microscope",
    "SearchSettings",
    "Spectrum",
    "ctf",
    "diagnostic_image",
    "dose_weights",
    "electron_wavelength",
    "fit_ctf",
    "phase_aberration",
    "spectrum_from_amplitudes",
    "spectrum_of_micrograph",
]

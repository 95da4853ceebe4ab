"""What `ctf` takes, and the search that it asks for."""

from __future__ import annotations

from dataclasses import replace

from vitreous.core.errors import InputError
from vitreous.job import JobParameters, parameter
from vitreous.methods.ctf_fitting.search import SearchSettings


class CtfParameters(JobParameters):
    """What `ctf` takes."""

    input: str = parameter(help="STAR file of micrographs", aliases=("i",))
    box: int = parameter(
        0, help="side of the power spectrum (0: 1024 for micrographs large enough, else 512)", unit="px",
        aliases=("Box",), ge=0, le=4096,
    )  # fmt: skip
    resolution_min: float = parameter(30.0, help="lowest resolution used", unit="A", aliases=("ResMin",), gt=0)
    resolution_max: float = parameter(
        5.0, help="highest resolution of the search (the refinement goes on as far as rings are)", unit="A",
        aliases=("ResMax",), gt=0,
    )  # fmt: skip
    defocus_min: float = parameter(5000.0, help="lowest defocus", unit="A", aliases=("dFMin",), gt=0)
    defocus_max: float = parameter(50000.0, help="highest defocus", unit="A", aliases=("dFMax",), gt=0)
    defocus_step: float = parameter(100.0, help="step of the search", unit="A", aliases=("FStep",), gt=0, le=1000)
    astigmatism: float = parameter(
        1000.0, help="astigmatism to expect (standard deviation of a Gaussian prior)", unit="A", aliases=("dAst",), gt=0
    )
    phase_shift: bool = parameter(False, help="search the phase shift of a phase plate", aliases=("do_phaseshift",))
    phase_min: float = parameter(0.0, help="lowest phase shift", unit="deg", ge=0, le=180)
    phase_max: float = parameter(180.0, help="highest phase shift", unit="deg", ge=0, le=180)
    phase_step: float = parameter(10.0, help="step of the phase search", unit="deg", gt=0)
    tilt: bool = parameter(False, help="find how the sample is tilted")
    thickness_max: float = parameter(
        0.0, help="find the sample's thickness up to this from its nodes (0: take it as thin; try 3000)", unit="A", ge=0
    )
    use_power_spectra: bool = parameter(
        False, help="fit the power spectra that motion correction stored", aliases=("use_given_ps",)
    )
    use_no_dw: bool = parameter(
        True, help="fit micrographs without dose weighting where there are any", aliases=("use_noDW",)
    )
    max_resolution: float | None = parameter(
        None, help="leave out micrographs that fit only to a resolution worse than this", unit="A", gt=0
    )
    target_pixel_size: float = parameter(
        1.4, help="pixel size down to which spectra go (Nyquist at twice this)", unit="A", advanced=True, gt=0
    )

    def check(self) -> None:
        """Raise InputError for limits that exclude each other."""
        for low, high, what in (
            (self.resolution_max, self.resolution_min, "resolution_max must be finer than resolution_min"),
            (self.defocus_min, self.defocus_max, "defocus_min must be less than defocus_max"),
            (self.phase_min, self.phase_max, "phase_min must be less than phase_max"),
        ):
            if low >= high:
                raise InputError("ctf", f"{what}, not {low:g} and {high:g}", "Exchange them.")
        if 0 < self.box < 128:
            raise InputError("--box", f"is {self.box}", "Give at least 128, or 0 for automatic.")
        if self.tilt and self.use_power_spectra:
            what = "cannot be told from a power spectrum of the whole micrograph"
            raise InputError("--tilt", what, "Leave --use-power-spectra out.")

    def settings(self) -> SearchSettings:
        """The search in the method's terms."""
        settings = SearchSettings(
            self.defocus_min,
            self.defocus_max,
            self.defocus_step,
            astigmatism_expected=self.astigmatism,
            thickness_max=self.thickness_max,
        )
        if not self.phase_shift:
            return settings
        return replace(settings, phase_min=self.phase_min, phase_max=self.phase_max, phase_step=self.phase_step)

"""Options of template matching: filters, which its other jobs share, and all of the search."""

from __future__ import annotations

from typing import Literal

from vitreous.job import JobParameters, parameter
from vitreous.methods.matching.filters import Filters


class FilterParameters(JobParameters):
    """How micrograph and template are filtered."""

    whiten: Literal["power", "amplitude", "none"] = parameter("power", help="spectrum that the noise is whitened by")
    low_frequency: float = parameter(
        0.0, help="band-pass: resolution above which nothing passes (0: no cut)", unit="A", ge=0
    )
    high_frequency: float = parameter(0.0, help="band-pass: finest resolution that passes (0: no cut)", unit="A", ge=0)
    falloff: float = parameter(0.05, help="width of the band-pass edges", unit="1/px", advanced=True, gt=0)
    randomise_from: float = parameter(
        0.0, help="randomise the micrograph's phases beyond this resolution (0: nowhere): a control", unit="A",
        advanced=True, ge=0,
    )  # fmt: skip


def filters_of(params: FilterParameters, pixel_size: float) -> Filters:
    """A resolution in A is pixel_size / resolution cycles a pixel."""
    return Filters(
        whiten="" if params.whiten == "none" else params.whiten,
        low=pixel_size / params.low_frequency if params.low_frequency else 0.0,
        high=pixel_size / params.high_frequency if params.high_frequency else 0.0,
        falloff=params.falloff,
        randomise_from=pixel_size / params.randomise_from if params.randomise_from else 0.0,
    )


class MatchTemplateParameters(FilterParameters):
    """What `match-template` takes."""

    micrographs: str = parameter("", help="STAR file of micrographs with their CTF", aliases=("i", "input"))
    template: str = parameter("", help="template volume (MRC), protein positive", aliases=("ref",))
    leopard_yaml: str = parameter(
        "", help="a match_template YAML of Leopard-EM, read as it stands, instead of the above"
    )
    strategy: Literal["full", "hierarchical"] = parameter(
        "full", help="search everything at full resolution, or coarsely first and finely around what stands out"
    )
    psi_step: float = parameter(1.5, help="in-plane step", unit="deg", gt=0, le=180)
    theta_step: float = parameter(2.5, help="out-of-plane step", unit="deg", gt=0, le=90)
    symmetry: str = parameter("C1", help="point group of the template", aliases=("sym",))
    grid: Literal["uniform", "healpix"] = parameter("uniform", help="how directions are laid out")
    defocus_range: float = parameter(1200.0, help="search so far to either side of the defocus", unit="A", ge=0)
    defocus_step: float = parameter(200.0, help="step of the defocus search (0: none)", unit="A", ge=0)
    pixel_size_range: float = parameter(
        0.0, help="search the pixel size so far to either side (0: no)", unit="A", advanced=True, ge=0
    )
    pixel_size_step: float = parameter(0.01, help="step of the pixel size", unit="A", advanced=True, gt=0)
    false_positives: float = parameter(1.0, help="false positives to accept in a micrograph", gt=0)
    threshold: float = parameter(0.0, help="z-score that counts as a hit (0: from the false positives)", ge=0)
    calibrated: bool = parameter(
        False, help="threshold for the false positives from the map's own peaks, not the formula (which is too high)"
    )
    p_value: float = parameter(
        0.0, help="choose hits by the joint p-value of MIP and z-score instead (0: by z-score)", ge=0, lt=1
    )
    min_distance: float = parameter(10.0, help="least distance of two hits", unit="A", ge=0)
    robust: bool = parameter(
        False, help="mean and deviation without the highest correlations: for crowded micrographs or small searches"
    )
    b_factor: float = parameter(0.0, help="B factor on the template", unit="A^2", ge=0)
    phi_limits: list[float] = parameter([], help="lowest and highest phi (rot)", unit="deg", advanced=True)
    theta_limits: list[float] = parameter([], help="lowest and highest theta (tilt)", unit="deg", advanced=True)
    psi_limits: list[float] = parameter([], help="lowest and highest psi", unit="deg", advanced=True)
    angles: str = parameter("", help="text file of phi theta psi to search instead of a grid", advanced=True)
    padding: int = parameter(
        2, help="oversampling of the template's transform", aliases=("pad",), advanced=True, ge=1, le=2
    )
    corners: bool = parameter(
        False, help="templates keep what lies beyond Nyquist in the corners of Fourier space (a Leopard-EM YAML does)",
        advanced=True,
    )  # fmt: skip
    checkpoint_interval: float = parameter(
        600.0, help="seconds between saves of the running statistics", advanced=True, ge=0
    )
    stretch: int = parameter(
        0, help="correlations a pixel that a rank (of several) takes at a time (0: 10,000 a CPU thread, 200,000 a GPU)",
        advanced=True, ge=0,
    )  # fmt: skip

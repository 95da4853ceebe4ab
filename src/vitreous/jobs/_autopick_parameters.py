"""What `autopick` takes."""

from __future__ import annotations

from vitreous.job import JobParameters, parameter


class AutopickParameters(JobParameters):
    """What `autopick` takes."""

    input: str = parameter(help="STAR file of micrographs with their CTF", aliases=("i",))
    diameter_min: float = parameter(
        0.0, help="smallest particle diameter (needed, unless a picker is given)", unit="A", aliases=("LoG_diam_min",),
        ge=0,
    )  # fmt: skip
    diameter_max: float = parameter(
        0.0, help="largest particle diameter (needed, unless a picker is given)", unit="A", aliases=("LoG_diam_max",),
        ge=0,
    )  # fmt: skip
    threshold: float | None = parameter(None, help="lowest score of a pick (default: found from the scores)")
    adjust_threshold: float = parameter(
        0.0, help="move the threshold by this many standard deviations of the scores: positive picks fewer",
        aliases=("LoG_adjust_threshold",),
    )  # fmt: skip
    upper_threshold: float = parameter(
        5.0, help="drop scores this many (robust) standard deviations above the picks' median (0: keep them)",
        aliases=("LoG_upper_threshold",), ge=0,
    )  # fmt: skip
    min_distance: float = parameter(
        0.0, help="least distance between picks (0: 0.8 of diameter_min)", unit="A",
        aliases=("min_distance_A", "min_distance"), ge=0,
    )  # fmt: skip
    max_resolution: float = parameter(
        20.0, help="finest detail used", unit="A", aliases=("LoG_maxres", "lowpass"), gt=0
    )
    ref: str = parameter(
        "", help="instead of a LoG: templates with white particles, class averages (.mrcs) or a map (.mrc)"
    )
    ref_pixel_size: float = parameter(
        0.0, help="pixel size of the templates (0: as their header says)", unit="A", aliases=("angpix_ref",), ge=0,
        advanced=True,
    )  # fmt: skip
    model: str = parameter(
        "", help="instead of a LoG: a trained picker (picker.pt of train-picker); it decides about contamination "
        "itself, and its scores are log-odds: 0 is as likely a particle as not",
    )  # fmt: skip
    psi_step: float = parameter(
        5.0, help="step of the templates' directions in the plane", unit="deg", aliases=("ang",), gt=0, le=360,
        advanced=True,
    )  # fmt: skip
    invert: bool = parameter(False, help="particles are white in the micrographs", aliases=("Log_invert", "LoG_invert"))
    use_ctf: bool = parameter(True, help="weight the filter with the CTF of each micrograph where it is known")
    exclude_contamination: bool = parameter(True, help="leave out ice crystals, carbon and dirt")
    edge: float = parameter(
        -1.0, help="least distance of a pick from the micrograph's edge (negative: half of diameter_max)", unit="A",
        advanced=True,
    )  # fmt: skip
    min_roundness: float = parameter(
        0.2, help="least roundness of a pick's response, 0 to 1: edges of carbon have less", advanced=True, ge=0, le=1
    )

"""What `extract` takes, and what follows from it for every image."""

from __future__ import annotations

from vitreous.core.errors import InputError
from vitreous.job import JobParameters, parameter
from vitreous.methods.extraction.extract import ExtractionRecipe, default_background_radius


class ExtractParameters(JobParameters):
    """What `extract` takes."""

    micrographs: str = parameter(help="STAR file of micrographs with their CTF", aliases=("i",))
    coordinates: str = parameter(
        "",
        help="autopick.star or any STAR file that lists coordinate files (.star, EMAN's .box), a STAR file of "
        "particles that know their place, or cryoSPARC's picks (.cs)",
        aliases=("coord_list",),
    )
    coord_suffix: str = parameter(
        "", help="instead: coordinate files are DIRECTORY/NAME + this, e.g. _pick.star or .box", advanced=True
    )
    coord_dir: str = parameter("", help="with coord-suffix: the directory", advanced=True)
    flip_y: bool = parameter(
        False, help="with .cs: turn picks upside down (the micrographs here are from TIFF or EER movies)", advanced=True
    )
    particles: str = parameter(
        "", help="particles to extract again instead of picks (a run_data.star)", aliases=("reextract_data_star",)
    )
    box: int = parameter(help="side of the window in the micrograph", unit="px", aliases=("extract_size",), ge=16)
    rescale: int = parameter(0, help="side of the images after Fourier cropping (0: as cut)", unit="px",
        aliases=("scale",), ge=0)  # fmt: skip
    bg_diameter: float = parameter(
        -1.0, help="diameter of the circle outside which is background, micrograph pixels (negative: 75% of the box)",
        unit="px",
    )  # fmt: skip
    normalise: bool = parameter(True, help="bring the background to mean 0 and deviation 1", aliases=("norm",))
    ramp: bool = parameter(True, help="take a plane off the background first", advanced=True)
    invert: bool = parameter(True, help="make protein white", aliases=("invert_contrast",))
    white_dust: float = parameter(-1.0, help="replace pixels above so many deviations (negative: none)", advanced=True)
    black_dust: float = parameter(-1.0, help="replace pixels below so many deviations (negative: none)", advanced=True)
    recenter: bool = parameter(False, help="re-extraction: move windows to the refined origins")
    recenter_on: str = parameter(
        "", help="re-extraction: centre on what stands out in a map (.mrc), or in each particle's class (.mrcs)"
    )
    recenter_x: float = parameter(0.0, help="re-extraction: centre on this point of the reference, from its centre",
        unit="px", advanced=True)  # fmt: skip
    recenter_y: float = parameter(0.0, help="the same in y", unit="px", advanced=True)
    recenter_z: float = parameter(0.0, help="the same in z", unit="px", advanced=True)
    ref_pixel_size: float = parameter(
        0.0, help="pixel size of that reference (0: its header's, or the particles')", unit="A",
        aliases=("ref_angpix",), advanced=True,
    )  # fmt: skip
    reset_offsets: bool = parameter(False, help="re-extraction: set the origins to zero", advanced=True)
    min_score: float | None = parameter(None, help="leave out picks with a lower score", aliases=("minimum_pick_fom",))
    min_inside: float = parameter(
        0.0, help="leave out windows with less than this share on the micrograph (0: only those wholly outside)",
        advanced=True, ge=0, le=1,
    )  # fmt: skip
    float16: bool = parameter(False, help="write half-precision stacks (RELION 4 and later read them)")


def recipe_of(params: ExtractParameters) -> ExtractionRecipe:
    """How windows become images. Raises InputError where the settings do not go together."""
    for name, value in (("box", params.box), ("rescale", params.rescale)):
        if value % 2:
            raise InputError("extract", f"{name} is {value}, an odd number", f"Take {value + 1}.")
    if params.rescale > params.box:
        raise InputError(
            "extract", f"rescale ({params.rescale}) is larger than box ({params.box})", "Images only shrink."
        )
    if sum(map(bool, (params.coordinates, params.coord_suffix, params.particles))) != 1:
        raise InputError("extract", "needs either coordinates or particles", "Give one of them.")
    radius = params.bg_diameter / 2 if params.bg_diameter > 0 else default_background_radius(params.box)
    if radius >= params.box / 2:
        what = f"bg_diameter ({params.bg_diameter:g} px) leaves no background in a box of {params.box} px"
        raise InputError("extract", what, "Take a smaller circle or a larger box.")
    return ExtractionRecipe(
        box=params.box,
        background_radius=radius,
        rescale=params.rescale if params.rescale != params.box else 0,
        invert=params.invert,
        normalise=params.normalise,
        ramp=params.ramp,
        white_dust=params.white_dust,
        black_dust=params.black_dust,
    )

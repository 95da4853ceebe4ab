"""What `motioncorr` takes, and what follows from it for one movie."""

from __future__ import annotations

from typing import Literal

from vitreous.io.eer import frames_per_fraction
from vitreous.job import JobParameters, parameter


class MotioncorrParameters(JobParameters):
    """What `motioncorr` takes."""

    input: str = parameter(help="movies: a STAR file, a folder or a pattern ('Movies/*.tiff')", aliases=("i",))
    pixel_size: float | None = parameter(
        None, help="pixel size of the movies (default: the STAR file's, else the headers')", unit="A",
        aliases=("angpix",), gt=0,
    )  # fmt: skip
    voltage: float | None = parameter(
        None, help="acceleration voltage (default: the STAR file's, else 300)", unit="kV", gt=0
    )
    cs: float | None = parameter(
        None, help="spherical aberration, for what follows (default: the STAR file's, else 2.7)", unit="mm", ge=0,
        advanced=True,
    )  # fmt: skip
    amplitude_contrast: float | None = parameter(
        None, help="amplitude contrast, for what follows (default: the STAR file's, else 0.1)", ge=0, le=1,
        advanced=True,
    )  # fmt: skip
    dose_per_frame: float = parameter(
        0.0, help="exposure of each frame (of each fraction for EER); needed for dose weighting", unit="e/A^2", ge=0
    )
    pre_exposure: float = parameter(
        0.0, help="exposure before the first frame", unit="e/A^2", aliases=("preexposure",), ge=0
    )
    gain: str | None = parameter(
        None, help="gain reference (.mrc, .tif, .gain), multiplied into the frames", aliases=("gainref",)
    )
    estimate_gain: int = parameter(
        0, help="without a gain reference: estimate one from this many movies (0: no; take 50 or more)", ge=0
    )
    gain_rotation: int = parameter(
        0, help="rotate the gain reference by this many times 90 degrees clockwise", aliases=("gain_rot",), ge=0, le=3
    )
    gain_flip: int = parameter(0, help="then flip it: 1 upside down, 2 left to right", ge=0, le=2)
    defects: str | None = parameter(
        None, help="defect map (non-zero = bad) or list of x y width height", aliases=("defect_file",)
    )
    skip_defect_search: bool = parameter(
        False, help="do not look for hot and dead pixels", aliases=("skip_defect",), advanced=True
    )
    patch_x: int = parameter(0, help="patches across x for local motion (0: automatic, 1: none)", ge=0, le=20)
    patch_y: int = parameter(0, help="patches across y for local motion (0: automatic, 1: none)", ge=0, le=20)
    local_model: Literal["polynomial", "spline", "best"] = parameter(
        "polynomial",
        help="local motion in time: RELION's cubic; a spline, which follows jumps (RELION reads the nearest cubic); or "
        "best, the one that foretells more of a half of the data to which it was not fitted",
        advanced=True,
    )
    bin: float = parameter(1.0, help="Fourier binning of the micrographs", aliases=("bin_factor",), ge=1, le=16)
    b_factor: float = parameter(
        150.0, help="B factor that weights frequencies in the alignment", unit="px^2", aliases=("bfactor",), gt=0
    )
    dose_weighting: bool = parameter(True, help="weight frequencies by radiation damage")
    save_no_dw: bool = parameter(False, help="write the sum without dose weighting, too", aliases=("save_noDW",))
    save_even_odd: bool = parameter(
        False, help="write sums of every other frame as well (_EVN.mrc, _ODD.mrc)", aliases=("even_odd_split",)
    )
    save_movies: bool = parameter(False, help="write the frames with their motion undone as well (_movie.mrcs)")
    group_frames: int = parameter(1, help="frames summed before their motion is measured", ge=1, advanced=True)
    group_dose: float = parameter(
        0.0, help="instead: sum frames to about this exposure before their motion is measured", unit="e/A^2", ge=0,
        advanced=True,
    )  # fmt: skip
    first_frame: int = parameter(1, help="first frame used", aliases=("first_frame_sum",), ge=1, advanced=True)
    last_frame: int = parameter(
        0, help="last frame used (0: the movie's last)", aliases=("last_frame_sum",), ge=-1, advanced=True
    )
    throw: int = parameter(0, help="frames left out at the beginning", ge=0, advanced=True)
    trunc: int = parameter(0, help="frames left out at the end", ge=0, advanced=True)
    eer_grouping: int = parameter(40, help="raw frames summed to a fraction (EER)", ge=1)
    eer_upsampling: int = parameter(1, help="grid of EER movies: 1 for 4K, 2 for 8K", ge=1, le=2)
    eer_raw_dose: float = parameter(
        0.0, help="exposure of a raw EER frame: sets the grouping and the dose per frame from --eer-fraction-dose",
        unit="e/A^2", ge=0,
    )  # fmt: skip
    eer_fraction_dose: float = parameter(
        1.0, help="exposure of a fraction, where --eer-raw-dose is given", unit="e/A^2", gt=0
    )
    ps_size: int = parameter(512, help="side of the power spectrum (0: write none)", unit="px", ge=0, le=4096)
    ps_dose: float = parameter(
        4.0, help="exposure summed before a power spectrum is taken", unit="e/A^2", gt=0, advanced=True
    )
    ps_frames: int = parameter(
        0, help="instead: frames summed before a power spectrum is taken (0: by exposure)", ge=0, advanced=True,
        aliases=("grouping_for_ps",),
    )  # fmt: skip
    early_dose: float = parameter(
        4.0, help="exposure that separates early from late motion", unit="e/A^2",
        aliases=("dose_motionstats_cutoff",), gt=0, advanced=True,
    )  # fmt: skip
    max_iterations: int = parameter(10, help="iterations of a fit at most", aliases=("max_iter",), ge=1, advanced=True)
    use_own: bool = parameter(True, help="for RELION's command lines: ours is the only one there is", advanced=True)
    float16: bool = parameter(False, help="write micrographs in half precision (MRC mode 12)")

    def grouping(self, movie: str) -> int:
        """Raw frames to a frame of this movie (EER; 1 for others)."""
        if not movie.lower().endswith(".eer"):
            return 1
        if self.eer_raw_dose:
            return frames_per_fraction(self.eer_raw_dose, self.eer_fraction_dose)
        return self.eer_grouping

    def dose_of(self, movie: str) -> float:
        """Exposure of each frame of this movie in e/A^2, 0 where it is not known."""
        if self.eer_raw_dose and movie.lower().endswith(".eer"):
            return self.eer_raw_dose * self.grouping(movie)
        return self.dose_per_frame

    def group_of(self, movie: str) -> int:
        """Frames of this movie that are summed before their motion is measured."""
        dose = self.dose_of(movie)
        return max(1, round(self.group_dose / dose)) if self.group_dose and dose else self.group_frames

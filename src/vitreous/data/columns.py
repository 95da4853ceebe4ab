"""The registry of columns: one place that says what each quantity is called, in what unit, and what RELION calls it.

Tables use our names. A column that is not here keeps its STAR label as its name, so nothing a user's file
holds is lost on the way through.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["float", "int", "str", "bool"]


@dataclass(frozen=True)
class Column:
    """One quantity: our name, its kind, its unit ("" for none), RELION's label, one line of help."""

    name: str
    kind: Kind
    unit: str
    label: str
    help: str


def _c(name: str, kind: Kind, unit: str, label: str, help: str) -> Column:
    return Column(name, kind, unit, label, help)


COLUMNS: tuple[Column, ...] = (
    # optics
    _c("optics_group", "int", "", "rlnOpticsGroup", "number of the optics group, from 1"),
    _c("optics_group_name", "str", "", "rlnOpticsGroupName", "name of the optics group"),
    _c("voltage", "float", "kV", "rlnVoltage", "acceleration voltage"),
    _c("cs", "float", "mm", "rlnSphericalAberration", "spherical aberration"),
    _c("amplitude_contrast", "float", "", "rlnAmplitudeContrast", "fraction of amplitude contrast"),
    _c("movie_pixel_size", "float", "A", "rlnMicrographOriginalPixelSize", "pixel size of the movie as recorded"),
    _c("micrograph_pixel_size", "float", "A", "rlnMicrographPixelSize", "pixel size of the micrograph"),
    _c("pixel_size", "float", "A", "rlnImagePixelSize", "pixel size of the particle images"),
    _c("box", "int", "px", "rlnImageSize", "box size of the particle images"),
    _c("image_dimensionality", "int", "", "rlnImageDimensionality", "2 for images, 3 for subtomograms"),
    _c("mtf_file", "str", "", "rlnMtfFileName", "detector MTF (STAR file)"),
    _c("ctf_premultiplied", "bool", "", "rlnCtfDataAreCtfPremultiplied", "images are multiplied by their CTF"),
    _c("beam_tilt_x", "float", "mrad", "rlnBeamTiltX", "beam tilt in x"),
    _c("beam_tilt_y", "float", "mrad", "rlnBeamTiltY", "beam tilt in y"),
    _c("odd_zernike", "str", "", "rlnOddZernike", "odd aberrations, [a,b,...] in radians and 1/A"),
    _c("even_zernike", "str", "", "rlnEvenZernike", "even aberrations, [a,b,...] in radians and 1/A"),
    _c("magnification_xx", "float", "", "rlnMagMat00", "anisotropic magnification: x of frequencies from x"),
    _c("magnification_xy", "float", "", "rlnMagMat01", "anisotropic magnification: x of frequencies from y"),
    _c("magnification_yx", "float", "", "rlnMagMat10", "anisotropic magnification: y of frequencies from x"),
    _c("magnification_yy", "float", "", "rlnMagMat11", "anisotropic magnification: y of frequencies from y"),
    # movies and micrographs
    _c("movie_name", "str", "", "rlnMicrographMovieName", "movie file"),
    _c("micrograph_name", "str", "", "rlnMicrographName", "micrograph file"),
    _c("micrograph_name_no_dw", "str", "", "rlnMicrographNameNoDW", "micrograph without dose weighting"),
    _c("micrograph_name_even", "str", "", "rlnMicrographNameEven", "sum of the even frames"),
    _c("micrograph_name_odd", "str", "", "rlnMicrographNameOdd", "sum of the odd frames"),
    _c("micrograph_metadata", "str", "", "rlnMicrographMetadata", "per-movie STAR file with the motion"),
    _c("gain_name", "str", "", "rlnMicrographGainName", "gain reference"),
    _c("defect_file", "str", "", "rlnMicrographDefectFile", "defect map"),
    _c("power_spectrum_name", "str", "", "rlnCtfPowerSpectrum", "power spectrum for CTF estimation"),
    _c("ctf_image", "str", "", "rlnCtfImage", "diagnostic image of the CTF fit"),
    _c("image_size_x", "int", "px", "rlnImageSizeX", "width of the movie"),
    _c("image_size_y", "int", "px", "rlnImageSizeY", "height of the movie"),
    _c("image_size_z", "int", "", "rlnImageSizeZ", "number of frames of the movie"),
    _c("binning", "float", "", "rlnMicrographBinning", "Fourier binning of the micrograph"),
    _c("dose_per_frame", "float", "e/A^2", "rlnMicrographDoseRate", "exposure of each frame"),
    _c("pre_exposure", "float", "e/A^2", "rlnMicrographPreExposure", "exposure before the first frame"),
    _c("start_frame", "int", "", "rlnMicrographStartFrame", "first frame of the sum, from 1"),
    _c("motion_model_version", "int", "", "rlnMotionModelVersion", "0: no local model, 1: polynomial"),
    _c("motion_total", "float", "A", "rlnAccumMotionTotal", "accumulated motion over all frames"),
    _c("motion_early", "float", "A", "rlnAccumMotionEarly", "accumulated motion in the first 4 e/A^2"),
    _c("motion_late", "float", "A", "rlnAccumMotionLate", "accumulated motion after the first 4 e/A^2"),
    _c("frame_number", "int", "", "rlnMicrographFrameNumber", "movie frame, from 1"),
    _c("shift_x", "float", "px", "rlnMicrographShiftX", "shift of a frame in x, pixels of the movie"),
    _c("shift_y", "float", "px", "rlnMicrographShiftY", "shift of a frame in y, pixels of the movie"),
    _c("motion_coefficient", "float", "", "rlnMotionModelCoeff", "coefficient of the local motion model"),
    _c("motion_coefficient_index", "int", "", "rlnMotionModelCoeffsIdx", "index of a motion model coefficient"),
    # CTF
    _c("defocus_u", "float", "A", "rlnDefocusU", "defocus along the U axis, underfocus positive"),
    _c("defocus_v", "float", "A", "rlnDefocusV", "defocus along the V axis, underfocus positive"),
    _c("defocus_angle", "float", "deg", "rlnDefocusAngle", "angle from x to the U axis"),
    _c("astigmatism", "float", "A", "rlnCtfAstigmatism", "defocus_u - defocus_v"),
    _c("phase_shift", "float", "deg", "rlnPhaseShift", "phase shift of a phase plate"),
    _c("ctf_b_factor", "float", "A^2", "rlnCtfBfactor", "B factor of the CTF envelope"),
    _c("ctf_scale", "float", "", "rlnCtfScalefactor", "scale of the CTF"),
    _c("ctf_figure_of_merit", "float", "", "rlnCtfFigureOfMerit", "correlation of the CTF fit"),
    _c("ctf_resolution", "float", "A", "rlnCtfMaxResolution", "resolution to which the CTF fits"),
    _c(
        "ice_ring",
        "float",
        "",
        "rlnCtfIceRingDensity",
        "power in the ice ring (0.25-0.28 1/A) over its surroundings, less 1",
    ),
    _c("sample_thickness", "float", "A", "vitreousSampleThickness", "thickness of the sample (0: no nodes were seen)"),
    _c("sample_tilt", "float", "deg", "vitreousSampleTilt", "tilt of the sample"),
    _c("tilt_axis", "float", "deg", "vitreousTiltAxis", "from x; defocus increases towards this + 90"),
    # coordinates and particles
    _c("coordinate_file", "str", "", "rlnMicrographCoordinates", "STAR file with the picks of a micrograph"),
    _c("coordinate_x", "float", "px", "rlnCoordinateX", "x of the particle on its micrograph"),
    _c("coordinate_y", "float", "px", "rlnCoordinateY", "y of the particle on its micrograph"),
    _c("pick_score", "float", "", "rlnAutopickFigureOfMerit", "figure of merit of a pick"),
    _c("image_name", "str", "", "rlnImageName", "000001@stack.mrcs, slices from 1"),
    _c("original_image_name", "str", "", "rlnImageOriginalName", "image this one was made from"),
    _c("particle_name", "str", "", "rlnParticleName", "name of the particle"),
    _c("rot", "float", "deg", "rlnAngleRot", "first Euler angle (about z)"),
    _c("tilt", "float", "deg", "rlnAngleTilt", "second Euler angle (about the new y)"),
    _c("psi", "float", "deg", "rlnAnglePsi", "third Euler angle (about the new z)"),
    _c("rot_prior", "float", "deg", "rlnAngleRotPrior", "prior of rot"),
    _c("tilt_prior", "float", "deg", "rlnAngleTiltPrior", "prior of tilt"),
    _c("psi_prior", "float", "deg", "rlnAnglePsiPrior", "prior of psi"),
    _c("origin_x", "float", "A", "rlnOriginXAngst", "shift in x that brings the particle to the box centre"),
    _c("origin_y", "float", "A", "rlnOriginYAngst", "shift in y that brings the particle to the box centre"),
    _c("origin_x_prior", "float", "A", "rlnOriginXPriorAngst", "prior of origin_x"),
    _c("origin_y_prior", "float", "A", "rlnOriginYPriorAngst", "prior of origin_y"),
    _c("class_number", "int", "", "rlnClassNumber", "class, from 1"),
    _c("half_set", "int", "", "rlnRandomSubset", "independent half, 1 or 2"),
    _c("group_number", "int", "", "rlnGroupNumber", "group for noise and scale, from 1"),
    _c("group_name", "str", "", "rlnGroupName", "name of the group"),
    _c("norm_correction", "float", "", "rlnNormCorrection", "normalisation correction"),
    _c("log_likelihood", "float", "", "rlnLogLikeliContribution", "contribution to the log-likelihood"),
    _c("max_probability", "float", "", "rlnMaxValueProbDistribution", "largest posterior weight of the particle"),
    _c("n_significant", "int", "", "rlnNrOfSignificantSamples", "number of significant samples"),
    # FSC, postprocess, models
    _c("reference_image", "str", "", "rlnReferenceImage", "reference map of a class"),
    _c("class_distribution", "float", "", "rlnClassDistribution", "fraction of the particles in a class"),
    _c("selected", "int", "", "rlnSelected", "1 where a class was chosen"),
    _c("accuracy_rotations", "float", "deg", "rlnAccuracyRotations", "estimated accuracy of the rotations"),
    _c("accuracy_translations", "float", "A", "rlnAccuracyTranslationsAngst", "estimated accuracy of the offsets"),
    _c("estimated_resolution", "float", "A", "rlnEstimatedResolution", "resolution where SSNR falls below 1"),
    _c("shell", "int", "", "rlnSpectralIndex", "Fourier shell"),
    _c("frequency", "float", "1/A", "rlnResolution", "spatial frequency of a shell"),
    _c("resolution", "float", "A", "rlnAngstromResolution", "resolution of a shell"),
    _c("fsc_corrected", "float", "", "rlnFourierShellCorrelationCorrected", "FSC corrected for the mask"),
    _c("fsc_unmasked", "float", "", "rlnFourierShellCorrelationUnmaskedMaps", "FSC of the unmasked half-maps"),
    _c("fsc_masked", "float", "", "rlnFourierShellCorrelationMaskedMaps", "FSC of the masked half-maps"),
    _c(
        "fsc_randomised",
        "float",
        "",
        "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps",
        "FSC of the masked half-maps with phases randomised",
    ),
    _c("gold_standard_fsc", "float", "", "rlnGoldStandardFsc", "FSC of the two halves"),
    _c("final_resolution", "float", "A", "rlnFinalResolution", "resolution of the map at FSC 0.143"),
    _c("b_factor_used", "float", "A^2", "rlnBfactorUsedForSharpening", "B factor that sharpened the map"),
    _c("half_map_1", "str", "", "rlnUnfilteredMapHalf1", "first unfiltered half-map"),
    _c("half_map_2", "str", "", "rlnUnfilteredMapHalf2", "second unfiltered half-map"),
    _c("mask_name", "str", "", "rlnMaskName", "solvent mask"),
    _c("mask_fraction", "float", "%", "rlnParticleBoxFractionSolventMask", "share of the box inside the mask"),
    _c("randomise_from", "float", "A", "rlnRandomiseFrom", "phases are randomised beyond this resolution"),
    _c("guinier_slope", "float", "A^2", "rlnFittedSlopeGuinierPlot", "slope of the line in the Guinier plot"),
    _c("guinier_intercept", "float", "", "rlnFittedInterceptGuinierPlot", "intercept of the line in the Guinier plot"),
    _c("guinier_correlation", "float", "", "rlnCorrelationFitGuinierPlot", "correlation of the Guinier fit"),
    _c("squared_frequency", "float", "1/A^2", "rlnResolutionSquared", "1/d^2 of a shell"),
    _c("log_amplitude", "float", "", "rlnLogAmplitudesOriginal", "ln of the mean amplitude of a shell"),
    _c("log_amplitude_weighted", "float", "", "rlnLogAmplitudesWeighted", "the same after MTF and FSC weighting"),
    _c("log_amplitude_sharpened", "float", "", "rlnLogAmplitudesSharpened", "the same after sharpening"),
    _c("log_amplitude_intercept", "float", "", "rlnLogAmplitudesIntercept", "intercept of the Guinier fit"),
    _c("mtf_frequency", "float", "1/px", "rlnResolutionInversePixel", "spatial frequency of an MTF value"),
    _c("mtf_value", "float", "", "rlnMtfValue", "modulation transfer"),
)

BY_NAME: dict[str, Column] = {column.name: column for column in COLUMNS}
BY_LABEL: dict[str, Column] = {column.label: column for column in COLUMNS}

"""The files that a refinement leaves each iteration, as RELION writes them: data, model, optimiser, sampling.

RELION's transforms are divided by the number of pixels, ours are not: powers are divided by box^4 on the way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.relion import write_dataset, write_tables


@dataclass(frozen=True)
class ClassModel:
    """One class of a model: file of its reference, share of the particles, resolution (A), curves by shell.

    ssnr: data_vs_prior; sigma2, tau2: powers of unnormalised transforms; fsc: gold-standard FSC where there is one;
    accuracies in degrees and A (999 where not estimated, as in RELION).
    """

    reference: str
    distribution: float
    resolution: float
    ssnr: Float[np.ndarray, "n_shells"]
    sigma2: Float[np.ndarray, "n_shells"]
    tau2: Float[np.ndarray, "n_shells"]
    fsc: Float[np.ndarray, "n_shells"] | None = None
    accuracy_rotations: float = 999.0
    accuracy_translations: float = 999.0
    directions: Float[np.ndarray, "n_directions"] | None = None


@dataclass(frozen=True)
class ScaleGroups:
    """Groups of particles with an intensity scale of their own: names, numbers of particles, scales."""

    names: list[str]
    sizes: list[int]
    scales: Float[np.ndarray, "n_groups"]


@dataclass(frozen=True)
class ModelFile:
    """What a _model.star holds. max_shell: half the current size; sigma_offset in A; noise by optics group.

    scale_groups None: the optics groups stand for them, with scales of one.
    """

    ndim: int
    box: int
    pixel_size: float
    max_shell: int
    resolution: float
    tau2_fudge: float
    sigma_offset: float
    norm: float
    log_likelihood: float
    max_probability: float
    classes: list[ClassModel]
    noise: Float[np.ndarray, "groups n_shells"]
    group_sizes: list[int]
    padding: int = 2
    scale_groups: ScaleGroups | None = None


@dataclass(frozen=True)
class SamplingFile:
    """What a _sampling.star holds: degrees and pixels; healpix_order None for 2D."""

    psi_step: float
    offset_range: float
    offset_step: float
    pixel_size: float
    perturb: float
    healpix_order: int | None = None
    symmetry: str = "C1"


@dataclass(frozen=True)
class OptimiserFile:
    """What an _optimiser.star holds besides file names; `more` adds labels as they are."""

    iteration: int
    n_iterations: int
    particle_diameter: float
    oversampling: int
    adaptive_fraction: float
    seed: int
    split_halves: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)


def iteration_root(directory: Path, iteration: int | None, half: int | None = None) -> Path:
    """DIRECTORY/run_it005, run_it005_half1, or run (the end)."""
    name = "run" if iteration is None else f"run_it{iteration:03d}"
    return directory / (name if half is None else f"{name}_half{half}")


def write_iteration(
    root: Path,
    project: Path,
    dataset: Dataset,
    model: ModelFile | None,
    optimiser: OptimiserFile,
    sampling: SamplingFile,
) -> None:
    """Write ROOT_data.star, ROOT_model.star, ROOT_sampling.star and, last of all, ROOT_optimiser.star.

    model None: there is one for each half, already written. Particles without groups of their own are given the
    model's: one an optics group.
    """
    if "group_name" not in dataset.rows:
        known = {int(group): group_name(number) for number, group in enumerate(dataset.optics["optics_group"], 1)}
        names = np.array([known[int(group)] for group in dataset.rows["optics_group"]], dtype=object)
        dataset = dataset.with_columns(group_name=names)
    write_dataset(Path(f"{root}_data.star"), dataset)
    if model is not None:
        write_model(Path(f"{root}_model.star"), model)
    write_sampling(Path(f"{root}_sampling.star"), sampling)
    relative = root.resolve().relative_to(project.resolve())
    write_tables(Path(f"{root}_optimiser.star"), {"optimiser_general": _optimiser(relative, optimiser)})


def group_name(number: int) -> str:
    """Name of a model's group, counted from 1, by which the particles' rows know it."""
    return f"group_{number:02d}"


def write_model(path: Path, model: ModelFile) -> None:
    """Write a _model.star."""
    scale = 1.0 / float(model.box) ** 4
    blocks: dict[str, Table | Mapping[str, Any]] = {
        "model_general": _general(model),
        "model_classes": _classes(model),
    }
    for number, one in enumerate(model.classes, 1):
        blocks[f"model_class_{number}"] = _class_curves(one, model, scale)
        if one.directions is not None:
            blocks[f"model_pdf_orient_class_{number}"] = Table({"rlnOrientationDistribution": one.directions})
    groups = _groups(model)
    blocks["model_groups"] = Table(
        {
            "rlnGroupNumber": np.arange(1, len(groups.names) + 1),
            "rlnGroupName": np.array(groups.names, dtype=object),
            "rlnGroupNrParticles": np.array(groups.sizes),
            "rlnGroupScaleCorrection": np.asarray(groups.scales),
        }
    )
    for number, sigma2 in enumerate(model.noise, 1):
        curves = {**_shells(model), "rlnSigma2Noise": np.asarray(sigma2, dtype=np.float64) * scale}
        blocks[f"model_optics_group_{number}"] = Table(curves)
        blocks[f"model_group_{number}"] = Table(curves)  # where RELION 3.1 looks for it
    write_tables(path, blocks)


def _groups(model: ModelFile) -> ScaleGroups:
    if model.scale_groups is not None:
        return model.scale_groups
    n = len(model.group_sizes)
    return ScaleGroups([f"group_{i:02d}" for i in range(1, n + 1)], model.group_sizes, np.ones(n))


def write_sampling(path: Path, sampling: SamplingFile) -> None:
    """Write a _sampling.star."""
    is_3d = sampling.healpix_order is not None
    block = {
        "rlnIs3DSampling": int(is_3d),
        "rlnIs3DTranslationalSampling": 0,
        "rlnHealpixOrder": sampling.healpix_order if is_3d else -1,
        "rlnSymmetryGroup": sampling.symmetry,
        "rlnTiltAngleLimit": -91.0,
        "rlnPsiStep": sampling.psi_step,
        "rlnOffsetRange": sampling.offset_range * sampling.pixel_size,
        "rlnOffsetStep": sampling.offset_step * sampling.pixel_size,
        "rlnHelicalOffsetStep": -1.0,
        "rlnSamplingPerturbInstance": 0.0,
        "rlnSamplingPerturbFactor": sampling.perturb,
    }
    write_tables(path, {"sampling_general": block})


def _shells(model: ModelFile) -> dict[str, np.ndarray]:
    shells = np.arange(model.box // 2 + 1)
    frequency = shells / (model.box * model.pixel_size)
    resolution = np.append(999.0, 1.0 / frequency[1:])
    return {"rlnSpectralIndex": shells, "rlnResolution": frequency, "rlnAngstromResolution": resolution}


def _general(model: ModelFile) -> dict[str, Any]:
    return {
        "rlnReferenceDimensionality": model.ndim,
        "rlnDataDimensionality": 2,
        "rlnOriginalImageSize": model.box,
        "rlnCurrentResolution": model.resolution,
        "rlnCurrentImageSize": min(model.box, 2 * model.max_shell),
        "rlnPaddingFactor": float(model.padding),
        "rlnIsHelix": 0,
        "rlnFourierSpaceInterpolator": 1,
        "rlnMinRadiusNnInterpolation": 10,
        "rlnPixelSize": model.pixel_size,
        "rlnNrClasses": len(model.classes),
        "rlnNrBodies": 1,
        "rlnNrGroups": len(_groups(model).names),
        "rlnNrOpticsGroups": len(model.noise),
        "rlnTau2FudgeFactor": model.tau2_fudge,
        "rlnNormCorrectionAverage": model.norm,
        "rlnSigmaOffsetsAngst": model.sigma_offset,
        "rlnOrientationalPriorMode": 0,
        "rlnSigmaPriorRotAngle": 0.0,
        "rlnSigmaPriorTiltAngle": 0.0,
        "rlnSigmaPriorPsiAngle": 0.0,
        "rlnLogLikelihood": model.log_likelihood,
        "rlnAveragePmax": model.max_probability,
    }


def _classes(model: ModelFile) -> Table:
    columns: dict[str, Any] = {
        "reference_image": np.array([one.reference for one in model.classes], dtype=object),
        "class_distribution": np.array([one.distribution for one in model.classes]),
        "accuracy_rotations": np.array([one.accuracy_rotations for one in model.classes]),
        "accuracy_translations": np.array([one.accuracy_translations for one in model.classes]),
        "estimated_resolution": np.array([one.resolution for one in model.classes]),
        "rlnOverallFourierCompleteness": np.ones(len(model.classes)),
    }
    if model.ndim == 2:
        zero = np.zeros(len(model.classes))
        columns |= {"rlnClassPriorOffsetX": zero, "rlnClassPriorOffsetY": zero}
    return Table(columns)


def _class_curves(one: ClassModel, model: ModelFile, scale: float) -> Table:
    n_shells = model.box // 2 + 1
    return Table(
        {
            **_shells(model),
            "rlnSsnrMap": one.ssnr,
            "gold_standard_fsc": np.zeros(n_shells) if one.fsc is None else one.fsc,
            "rlnFourierCompleteness": np.ones(n_shells),
            "rlnReferenceSigma2": np.asarray(one.sigma2) * scale,
            "rlnReferenceTau2": np.asarray(one.tau2) * scale,
        }
    )


# Labels without which relion_refine 3.1.3 will not go on from an optimiser file, where a job has nothing else to say.
_OPTIMISER_DEFAULTS: dict[str, Any] = {
    "rlnJoinHalvesUntilThisResolution": -1.0,
    "rlnSolventMaskName": "None",
    "rlnSolventMask2Name": "None",
    "rlnTauSpectrumName": "None",
    "rlnMaximumCoarseImageSize": -1,
    "rlnHighresLimitExpectation": -1.0,
    "rlnIncrementImageSize": 10,
    "rlnDoMapEstimation": 1,
    "rlnDoAutoRefine": 0,
    "rlnAutoLocalSearchesHealpixOrder": 4,
    "rlnNumberOfIterWithoutResolutionGain": 0,
    "rlnBestResolutionThusFar": 0.0,
    "rlnNumberOfIterWithoutChangingAssignments": 0,
    "rlnDoSkipAlign": 0,
    "rlnDoSkipRotate": 0,
    "rlnOverallAccuracyRotations": 999.0,
    "rlnOverallAccuracyTranslationsAngst": 999.0,
    "rlnChangesOptimalOrientations": 999.0,
    "rlnChangesOptimalOffsets": 999.0,
    "rlnChangesOptimalClasses": 999.0,
    "rlnSmallestChangesOrientations": 999.0,
    "rlnSmallestChangesOffsets": 999.0,
    "rlnSmallestChangesClasses": 9999999,
    "rlnHasConverged": 0,
    "rlnHasHighFscAtResolLimit": 0,
    "rlnHasLargeSizeIncreaseIterationsAgo": 0,
    "rlnDoCorrectNorm": 1,
    "rlnDoCorrectScale": 0,
    "rlnDoCorrectCtf": 1,
    "rlnDoIgnoreCtfUntilFirstPeak": 0,
    "rlnCtfDataArePhaseFlipped": 0,
    "rlnDoOnlyFlipCtfPhases": 0,
    "rlnRefsAreCtfCorrected": 1,
    "rlnFixSigmaNoiseEstimates": 0,
    "rlnFixSigmaOffsetEstimates": 0,
    "rlnMaxNumberOfPooledParticles": 30,
}


def _optimiser(root: Path, optimiser: OptimiserFile) -> dict[str, Any]:
    models = ["half1_model", "half2_model"] if optimiser.split_halves else ["model"]
    names = dict(zip(["rlnModelStarFile", "rlnModelStarFile2"], models, strict=False))
    return {
        "rlnOutputRootName": str(root.with_name(root.name.split("_it")[0])),
        **{label: f"{root}_{name}.star" for label, name in names.items()},
        "rlnExperimentalDataStarFile": f"{root}_data.star",
        "rlnOrientSamplingStarFile": f"{root}_sampling.star",
        "rlnCurrentIteration": optimiser.iteration,
        "rlnNumberOfIterations": optimiser.n_iterations,
        "rlnDoSplitRandomHalves": int(optimiser.split_halves),
        "rlnParticleDiameter": optimiser.particle_diameter,
        "rlnWidthMaskEdge": 5,
        "rlnDoZeroMask": 1,
        "rlnDoSolventFlattening": 1,
        "rlnAdaptiveOversampleOrder": optimiser.oversampling,
        "rlnAdaptiveOversampleFraction": optimiser.adaptive_fraction,
        "rlnRandomSeed": optimiser.seed,
        **_OPTIMISER_DEFAULTS,
        **optimiser.more,
    }

"""Make a solvent mask from a map."""

from __future__ import annotations

from typing import Any

from vitreous.core.errors import InputError
from vitreous.data.volume import Volume
from vitreous.io.mrc import read_map, write_map
from vitreous.job import Context, Job, JobParameters, Outputs, parameter
from vitreous.methods.maps.solvent_mask import make_mask

MASK_NODE = "Mask3D.mrc.relion"
# A mask that fills this much of the box lets the solvent in; less than the other is hardly a particle.
_SUSPICIOUS_FRACTIONS = (0.005, 0.5)


class MaskParameters(JobParameters):
    """What `mask` takes."""

    input: str = parameter(help="map to make the mask from (.mrc)", aliases=("i",))
    pixel_size: float | None = parameter(
        None, help="voxel size (default: the header's)", unit="A", aliases=("angpix",), gt=0
    )
    threshold: float | None = parameter(
        None,
        help="density at which the low-passed map is cut (default: found from the map)",
        aliases=("ini_threshold",),
    )
    lowpass: float = parameter(15.0, help="low-pass the map before it is cut (0: do not)", unit="A", ge=0)
    extend: float = parameter(3.0, help="grow the cut by this much", unit="px", aliases=("extend_inimask",), ge=0)
    edge: float = parameter(
        6.0, help="width of the soft edge", unit="px", aliases=("width_soft_edge", "width_mask_edge"), ge=0
    )
    keep_islands_above: float = parameter(
        0.02, help="drop pieces smaller than this share of the largest one", advanced=True, ge=0, lt=1
    )
    fill_holes: bool = parameter(False, help="fill closed cavities (a shell becomes a ball)", advanced=True)


class Mask(Job):
    """Threshold, clean, extend and soften a map: 1 in the particle, 0 in the solvent."""

    name = "mask"
    folder = "MaskCreate"
    relion_type = "relion.maskcreate"
    help = "make a soft solvent mask from a map"
    Parameters = MaskParameters

    def run(self, params: Any, context: Context) -> Outputs:
        """Write mask.mrc. Raises InputError where nothing lies above the threshold."""
        path = context.project / params.input
        volume = read_map(path)
        voxel_size = params.pixel_size or volume.voxel_size
        try:
            solvent = make_mask(
                volume.density,
                voxel_size,
                threshold=params.threshold,
                lowpass_resolution=params.lowpass or None,
                extend=params.extend,
                edge=params.edge,
                keep_islands_above=params.keep_islands_above,
                fill_holes=params.fill_holes,
            )
        except ValueError as error:
            raise InputError(path, str(error), "Lower --threshold, or leave it out to have it found") from error
        target = context.directory / "mask.mrc"
        write_map(target, Volume(solvent.mask, voxel_size))
        return Outputs(
            nodes={context.relative(target): MASK_NODE},
            metrics={"threshold": solvent.threshold, "mask_fraction": solvent.fraction},
            summary=f"mask covers {100 * solvent.fraction:.1f}% of the box, cut at {solvent.threshold:.4g}"
            + _warning(solvent.fraction),
        )


def _warning(fraction: float) -> str:
    low, high = _SUSPICIOUS_FRACTIONS
    if fraction < low:
        return "; that is very little: is the threshold too high?"
    if fraction > high:
        return "; that is more than half: is the threshold too low?"
    return ""

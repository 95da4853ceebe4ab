"""Maps as a library: Fourier shell correlation, masks, sharpening, local resolution, reading and writing.

Arrays are torch tensors (z, y, x); voxel sizes and resolutions are in Angstrom.
"""

from vitreous.core.fourier import lowpass
from vitreous.core.fsc import fsc, fsc_resolution, resolution_shell, shell_resolution
from vitreous.core.masks import soft_sphere
from vitreous.data.volume import Volume
from vitreous.io.half_maps import read_half_maps
from vitreous.io.mrc import read_map, write_map
from vitreous.methods.maps.align import Alignment, align_map, apply_alignment
from vitreous.methods.maps.half_map_fsc import HalfMapFsc, half_map_fsc
from vitreous.methods.maps.local_resolution import LocalResolution, Window, local_resolution
from vitreous.methods.maps.sharpening import Mtf, Sharpening, sharpen
from vitreous.methods.maps.solvent_mask import make_mask
from vitreous.methods.maps.truth_fsc import TruthFsc, truth_fsc
from vitreous.methods.refinement.reconstruct import reconstruct

__all__ = [
    "Alignment",
    "HalfMapFsc",
    "LocalResolution",
    "Mtf",
    "Sharpening",
    "TruthFsc",
    "Volume",
    "Window",
    "align_map",
    "apply_alignment",
    "fsc",
    "fsc_resolution",
    "half_map_fsc",
    "local_resolution",
    "lowpass",
    "make_mask",
    "read_half_maps",
    "read_map",
    "reconstruct",
    "resolution_shell",
    "sharpen",
    "shell_resolution",
    "soft_sphere",
    "truth_fsc",
    "write_map",
]

"""Make a template for matching from an atomic model, as a micrograph's exposure would show it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from vitreous.core.errors import InputError
from vitreous.core.fourier import radius_grid, to_fourier, to_real
from vitreous.data.volume import Volume
from vitreous.io.models import read_atoms
from vitreous.io.mrc import write_map
from vitreous.job import Context, Job, JobParameters, Outputs, parameter
from vitreous.jobs._simulation import even
from vitreous.methods.simulation.optics import damage_of_sum
from vitreous.methods.simulation.potential import Scattering, potential_map, radius_of


class MakeTemplateParameters(JobParameters):
    """What `make-template` takes."""

    model: str = parameter(help="atomic model (PDB or mmCIF)", aliases=("i", "input"))
    assembly: str = parameter("", help="biological assembly to build from the model (its name, often 1)")
    pixel_size: float = parameter(help="voxel size: the micrograph's pixel size", unit="A", aliases=("angpix",), gt=0)
    box: int = parameter(0, help="box (0: 1.5 diameters)", unit="px", ge=0)
    voltage: float = parameter(300.0, help="acceleration voltage", unit="kV", aliases=("kV",), ge=20, le=3000)
    dose: float = parameter(
        0.0, help="exposure of the micrograph, whose damage the template shares (0: none)", unit="e/A^2", ge=0
    )
    pre_exposure: float = parameter(0.0, help="exposure before the first frame", unit="e/A^2", ge=0)
    dose_weighting: bool = parameter(True, help="the micrograph's frames are weighted by dose (no: a plain sum)")
    b_factor: float = parameter(0.0, help="added to the atoms' B factors", unit="A^2", ge=0)
    b_scale: float = parameter(1.0, help="multiplies the atoms' own B factors", advanced=True, ge=0)
    solvent: bool = parameter(True, help="take off the ice that the atoms displace", advanced=True)
    centre: bool = parameter(True, help="centre the model in the box (no: its origin stands there)", advanced=True)


class MakeTemplate(Job):
    """The model's electrostatic potential in V, dimmed at each frequency by what the exposure destroys."""

    name = "make-template"
    folder = "MakeTemplate"
    relion_type = "vitreous.maketemplate"
    help = "make a matching template from an atomic model and the dose (2DTM)"
    Parameters = MakeTemplateParameters

    def run(self, params: Any, context: Context) -> Outputs:
        """Write template.mrc. Raises InputError for faults of the model, or where it does not fit the box."""
        path = context.project / params.model
        atoms = read_atoms(path, assembly=params.assembly or None)
        atoms = replace(atoms.centred() if params.centre else atoms, b_factors=params.b_scale * atoms.b_factors)
        radius = radius_of(atoms)
        box = params.box or even(3.0 * radius / params.pixel_size)
        if box % 2 or box * params.pixel_size < 2.0 * radius:
            what = f"is odd or smaller than the molecule's {2.0 * radius / params.pixel_size:.0f} pixels"
            raise InputError("--box", f"of {box} {what}", "Give a larger, even one.")
        try:
            scattering = Scattering(solvent=params.solvent, b_factor=params.b_factor)
            volume = potential_map(atoms, box, params.pixel_size, scattering)
        except ValueError as error:
            raise InputError(path, str(error), "Remove these atoms from the model.") from error
        if params.dose > 0:
            volume = exposed(volume, params.pre_exposure, params.dose, params.voltage, weighted=params.dose_weighting)
        target = context.directory / "template.mrc"
        write_map(target, volume)
        return Outputs(
            nodes={context.relative(target): "DensityMap.mrc"},
            metrics={"n_atoms": len(atoms), "diameter_A": 2.0 * radius, "box_px": box},
            summary=f"{len(atoms)} atoms, {2.0 * radius:.0f} A across, in a box of {box}",
        )


def exposed(volume: Volume, before: float, dose: float, voltage: float, *, weighted: bool) -> Volume:
    """A volume as the sum of an exposure (e/A^2) shows it, its noise taken as 1 at all frequencies."""
    shape = tuple(volume.density.shape)
    frequency = radius_grid(shape, volume.voxel_size)
    kept = damage_of_sum(frequency, before, before + dose, voltage, weighted=weighted).to(torch.float32)
    return Volume(to_real(to_fourier(volume.density, 3) * kept, shape, 3), volume.voxel_size)

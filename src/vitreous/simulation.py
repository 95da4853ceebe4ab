"""Simulation as a library: atoms to potential, particles, micrographs and movies with known truth."""

from vitreous.data.atoms import Atoms
from vitreous.io.models import read_atoms
from vitreous.methods.simulation.detector import DetectorSettings, random_detector
from vitreous.methods.simulation.exposure import Acquisition, Specimen, record_micrograph, record_movie
from vitreous.methods.simulation.ferritin import ferritin
from vitreous.methods.simulation.ice import Ice
from vitreous.methods.simulation.motion import MotionSettings, random_motion
from vitreous.methods.simulation.optics import Envelope, Focus
from vitreous.methods.simulation.potential import Projector, potential_map
from vitreous.methods.simulation.scene import Crowd, random_scene

__all__ = [
    "Acquisition",
    "Atoms",
    "Crowd",
    "DetectorSettings",
    "Envelope",
    "Focus",
    "Ice",
    "MotionSettings",
    "Projector",
    "Specimen",
    "ferritin",
    "potential_map",
    "random_detector",
    "random_motion",
    "random_scene",
    "read_atoms",
    "record_micrograph",
    "record_movie",
]

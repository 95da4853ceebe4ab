"""Particles as a library: find them in a micrograph, cut them out, read and write sets of them."""

from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.relion import read_dataset, write_dataset
from vitreous.io.stacks import ParticleStack
from vitreous.methods.extraction.extract import ExtractionRecipe, extract
from vitreous.methods.extraction.normalise import normalise
from vitreous.methods.extraction.recentre import recentre
from vitreous.methods.picking.pick import Candidates, Lens, PickingRecipe, find_candidates

__all__ = [
    "Candidates",
    "Dataset",
    "ExtractionRecipe",
    "Lens",
    "ParticleStack",
    "PickingRecipe",
    "Table",
    "extract",
    "find_candidates",
    "normalise",
    "read_dataset",
    "recentre",
    "write_dataset",
]

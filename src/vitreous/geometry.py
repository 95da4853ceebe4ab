"""Rotations, point groups and orientation grids as a library."""

from vitreous.core.rotations import angular_distance, euler_to_matrix, matrix_to_euler, random_rotations
from vitreous.core.so3 import OrientationGrid, orientation_grid
from vitreous.core.symmetry import reduce_to_asymmetric_unit, symmetric_distance, symmetry_matrices

__all__ = [
    "OrientationGrid",
    "angular_distance",
    "euler_to_matrix",
    "matrix_to_euler",
    "orientation_grid",
    "random_rotations",
    "reduce_to_asymmetric_unit",
    "symmetric_distance",
    "symmetry_matrices",
]

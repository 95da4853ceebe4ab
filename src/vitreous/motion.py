"""Beam-induced motion as a library: measure it in a movie, undo it, sum with dose weights."""

from vitreous.data.motion import Motion
from vitreous.io.gain import read_gain
from vitreous.io.movies import open_movie
from vitreous.methods.motion.correct import Corrected, MotionOptions, correct_movie
from vitreous.methods.motion.correction import SumOptions
from vitreous.methods.motion.exposure import Exposure
from vitreous.methods.motion.frames import ArrayFrames

__all__ = [
    "ArrayFrames",
    "Corrected",
    "Exposure",
    "Motion",
    "MotionOptions",
    "SumOptions",
    "correct_movie",
    "open_movie",
    "read_gain",
]

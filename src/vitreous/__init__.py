"""vitreous: cryo-EM image processing, from movies to maps."""

__version__ = "0.1.0"

"""Ours against RELION 3.1.3 (Debian's) on the same particles, options and iterations; run with `python -m`."""

"""The programs: command line, reports, pictures."""

import atexit
import gc
import os

# Threads that wait for work sleep: spinning ones take the cores from those that have work, here and in other
# programs. It must be said before the OpenMP library is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Importing torch, numba and matplotlib makes half a million objects, none of them garbage; at Python's usual 700
# new ones a collection, a quarter of a program's start went into looking them over.
gc.set_threshold(200_000)

# Nor at the end: the memory goes back whole. Without this the interpreter looks at all of them once more, for 0.4 s.
atexit.register(gc.freeze)

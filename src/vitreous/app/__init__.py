"""The programs: command line, reports, pictures."""

import os

# Threads that wait for work sleep: spinning ones take the cores from those that have work, here and in other
# programs. It must be said before the OpenMP library is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

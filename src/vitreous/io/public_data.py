"""Public data sets that `vitreous fetch` knows by name."""

from __future__ import annotations

import re

from vitreous.core.errors import InputError
from vitreous.io.fetch import Remote

_PDB = re.compile(r"(?:pdb[-_:]?)?([0-9][a-z0-9]{3})", re.IGNORECASE)
_EMDB = re.compile(r"emd[-_]?([0-9]{4,5})", re.IGNORECASE)

SETS: dict[str, tuple[str, tuple[Remote, ...]]] = {
    "empiar-10204": (
        "24 movies of beta-galactosidase (EMPIAR-10204, RELION's tutorial): 200 kV, Cs 1.4 mm, 0.885 A/px, "
        "1.277 e/A^2 a frame; with gain reference",
        (
            Remote(
                "ftp://ftp.mrc-lmb.cam.ac.uk/pub/scheres/relion30_tutorial_data.tar",
                "relion30_tutorial_data.tar",
                unpack=True,
            ),
        ),
    ),
}


def find_remotes(name: str) -> tuple[Remote, ...]:
    """What to download for a name: a set ("empiar-10204"), "6z6u" or "pdb-6z6u", "emd-20026", or a URL.

    Raises InputError for a name that is none of these.
    """
    if name.lower() in SETS:
        return SETS[name.lower()][1]
    if "://" in name:
        return (Remote(name, name.rstrip("/").rpartition("/")[2].partition("?")[0] or "download"),)
    if match := _PDB.fullmatch(name):
        file = f"{match[1].lower()}.cif.gz"
        return (Remote(f"https://files.rcsb.org/download/{file}", file),)
    if match := _EMDB.fullmatch(name):
        number = match[1]
        file = f"emd_{number}.map.gz"
        url = f"https://ftp.ebi.ac.uk/pub/databases/emdb/structures/EMD-{number}/map/{file}"
        return (Remote(url, file),)
    known = ", ".join(SETS)
    raise InputError(name, "is no data set that is known", f"Give {known}, a PDB entry (6z6u), emd-20026 or a URL.")

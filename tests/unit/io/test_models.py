from __future__ import annotations

import gzip
from pathlib import Path

import gemmi
import numpy as np
import pytest

from vitreous.core.errors import InputError
from vitreous.io.models import read_atoms

PDB = """\
CRYST1   50.000   50.000   50.000  90.00  90.00  90.00 P 1           1
REMARK 350 BIOMOLECULE: 1
REMARK 350 APPLY THE FOLLOWING TO CHAINS: A
REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000
REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000
REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000
REMARK 350   BIOMT1   2 -1.000000  0.000000  0.000000       10.00000
REMARK 350   BIOMT2   2  0.000000 -1.000000  0.000000        0.00000
REMARK 350   BIOMT3   2  0.000000  0.000000  1.000000        0.00000
MODEL        1
ATOM      1  N   ALA A   1       1.000   2.000   3.000  1.00 20.00           N
ATOM      2  CA AALA A   1       2.000   2.000   3.000  0.30 21.00           C
ATOM      3  CA BALA A   1       2.500   2.000   3.000  0.70 22.00           C
ATOM      4  CB AALA A   1       3.000   2.000   3.000  0.30 21.00           C
ATOM      5  CB BALA A   1       3.500   2.000   3.000  0.70 22.00           C
ATOM      6  HA  ALA A   1       2.000   3.000   3.000  1.00 20.00           H
HETATM    7 FE   HEM A   2       5.000   5.000   5.000  0.50 30.00          FE
HETATM    8  O   HOH A   3       9.000   9.000   9.000  1.00 40.00           O
ENDMDL
MODEL        2
ATOM      1  N   ALA A   1       7.000   2.000   3.000  1.00 20.00           N
ENDMDL
END
"""


def pdb(tmp_path: Path) -> Path:
    path = tmp_path / "a.pdb"
    path.write_text(PDB)
    return path


def test_first_model_without_water_and_hydrogen_most_occupied_places(tmp_path: Path) -> None:
    atoms = read_atoms(pdb(tmp_path))
    assert atoms.elements.tolist() == ["N", "C", "C", "Fe"]
    assert atoms.positions[:, 0].tolist() == [1.0, 2.5, 3.5, 5.0]
    assert atoms.positions[0].tolist() == [1.0, 2.0, 3.0]
    assert atoms.b_factors.tolist() == [20.0, 22.0, 22.0, 30.0]
    assert atoms.occupancies.tolist() == [1.0, 1.0, 1.0, 0.5]


def test_water_and_hydrogen_on_request(tmp_path: Path) -> None:
    assert len(read_atoms(pdb(tmp_path), waters=True, hydrogens=True)) == 6


def test_assembly(tmp_path: Path) -> None:
    atoms = read_atoms(pdb(tmp_path), assembly="1")
    assert len(atoms) == 8
    x = np.sort(atoms.positions[:, 0])
    np.testing.assert_allclose(x, [1, 2.5, 3.5, 5, 5, 6.5, 7.5, 9])
    with pytest.raises(InputError, match=r"no assembly 2 \(it has: 1\)"):
        read_atoms(pdb(tmp_path), assembly="2")


def test_gzip_and_mmcif(tmp_path: Path) -> None:
    path = pdb(tmp_path)
    (tmp_path / "a.pdb.gz").write_bytes(gzip.compress(path.read_bytes()))
    structure = gemmi.read_structure(str(path))
    structure.make_mmcif_document().write_file(str(tmp_path / "a.cif"))
    (tmp_path / "a.cif.gz").write_bytes(gzip.compress((tmp_path / "a.cif").read_bytes()))
    expected = read_atoms(path)
    for name in ("a.pdb.gz", "a.cif", "a.cif.gz"):
        atoms = read_atoms(tmp_path / name)
        np.testing.assert_allclose(atoms.positions, expected.positions)
        assert atoms.elements.tolist() == expected.elements.tolist()


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        read_atoms(tmp_path / "none.pdb")
    for name, raw in (("a.cif", b"hello\n"), ("b.pdb", b"hello\n"), ("c.pdb.gz", b"no gzip"), ("d.txt", b"x")):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(InputError, match=name[:1]):
            read_atoms(tmp_path / name)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "assembly", "n_atoms"),
    [("models/6z6u_apoferritin.pdb.gz", None, 32618), ("models/1igy_antibody.cif.gz", None, 10252)],
)
def test_real_models(data_dir: Path, name: str, assembly: str | None, n_atoms: int) -> None:
    atoms = read_atoms(data_dir / name, assembly=assembly)
    assert len(atoms) == n_atoms
    assert "H" not in atoms.elements
    assert np.ptp(atoms.positions, axis=0).max() > 50

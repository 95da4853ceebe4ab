"""Refine the same particles from the same reference with Debian's RELION, and compare half-map resolutions.

    python benchmarks/peer_refine3d.py PROJECT Select/job004/particles.star Refine3D/job006 --sym D2 --mask ...

Ours is the finished Refine3D job; its reference, diameter and particles are read from its job.yaml. RELION 3.1.3
gets float32 copies of the stacks (it cannot read float16). Both pairs of half-maps go through `relion_postprocess`
with the same mask. Wall times are printed; they are only comparable on a quiet machine.

From the reference alone RELION needs hours on two cores. With --from-our-poses it starts from our poses, half-sets
and map, with local searches: the best start it can have, and minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import yaml

from vitreous.data.volume import Volume
from vitreous.io.mrc import StackWriter, read_map, write_map
from vitreous.io.relion import read_dataset, read_table, write_dataset
from vitreous.io.stacks import ParticleStack


def float32_copy(project: Path, particles: Path, target: Path, *, with_poses: bool) -> int:
    dataset = read_dataset(particles)
    source = ParticleStack(dataset, project)
    with StackWriter(target / "particles.mrcs", source.pixel_size) as stack:
        for start in range(0, len(source), 512):
            index = np.arange(start, min(start + 512, len(source)))
            stack.append(source[index])
    names = np.array([f"{i + 1:06d}@particles.mrcs" for i in range(len(source))], dtype=object)
    rows = dataset.rows
    if not with_poses:
        rows = rows.without("rot", "tilt", "psi", "origin_x", "origin_y", "class_number", "half_set")
    write_dataset(
        target / "particles.star", type(dataset)(dataset.kind, dataset.optics, rows.with_columns(image_name=names))
    )
    return len(source)


def run_relion(target: Path, args: argparse.Namespace, ours: dict[str, object]) -> float:
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "3", "relion_refine_mpi"]
    command += ["--o", "./run", "--auto_refine", "--split_random_halves", "--i", "particles.star", "--ref", "ref.mrc"]
    command += ["--dont_combine_weights_via_disc", "--pool", "30"]
    if args.from_our_poses:
        command += ["--ini_high", "10", "--healpix_order", "4", "--sigma_ang", "3.75"]
    else:
        command += ["--firstiter_cc", "--ini_high", f"{ours['ini_high']:g}", "--healpix_order", "2"]
    command += ["--pad", "1", "--ctf", "--particle_diameter", f"{ours['particle_diameter']:g}", "--flatten_solvent"]
    command += ["--zero_mask", "--oversampling", "1", "--auto_local_healpix_order", "4"]
    command += ["--offset_range", "5", "--offset_step", "2", "--sym", args.sym, "--low_resol_join_halves", "40"]
    command += ["--norm", "--scale", "--j", "1", "--random_seed", "1", "--preread_images"]
    start = time.monotonic()
    with open(target / "run.out", "w") as out:
        subprocess.run(command, cwd=target, check=True, stdout=out, stderr=subprocess.STDOUT)
    return time.monotonic() - start


def masked_resolution(directory: Path, half1: Path, mask: Path, name: str, pixel_size: float) -> float:
    command = [
        "relion_postprocess",
        "--i",
        os.path.relpath(half1, directory),
        "--mask",
        os.path.relpath(mask, directory),
    ]
    (directory / name).mkdir(exist_ok=True)  # without a folder of its own it fails at its logfile.pdf
    command += ["--o", f"{name}/postprocess", "--angpix", f"{pixel_size}", "--force_mask"]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
    return float(read_table(directory / name / "postprocess.star", "general")["final_resolution"][0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("refined", help="our finished job, e.g. Refine3D/job006")
    parser.add_argument("mask", help="mask for both, e.g. MaskCreate/job007/mask.mrc")
    parser.add_argument("--sym", default="D2")
    parser.add_argument("--from-our-poses", action="store_true", help="local searches around our final poses")
    parser.add_argument("--work", type=Path, default=Path("peer_refine3d"))
    args = parser.parse_args()
    ours = yaml.safe_load((args.project / args.refined / "job.yaml").read_text())
    params, started = ours["parameters"], args.work
    started.mkdir(parents=True, exist_ok=True)
    final = args.project / args.refined
    particles = final / "run_data.star" if args.from_our_poses else args.project / params["input"]
    count = float32_copy(args.project, particles, started, with_poses=args.from_our_poses)
    reference = read_map(final / "run_class001.mrc" if args.from_our_poses else args.project / params["reference"])
    write_map(started / "ref.mrc", Volume(reference.density, reference.voxel_size))
    seconds = run_relion(started, args, params)
    half = final / "run_half1_class001_unfil.mrc"
    mask = args.project / args.mask
    mine = masked_resolution(started, half.resolve(), mask.resolve(), "ours", reference.voxel_size)
    peer_half = started / "run_half1_class001_unfil.mrc"
    peer = masked_resolution(started, peer_half.resolve(), mask.resolve(), "peer", reference.voxel_size)
    print(f"{count} particles: vitreous {mine:.2f} A, RELION 3.1.3 {peer:.2f} A ({seconds:.0f} s) at FSC 0.143")


if __name__ == "__main__":
    main()

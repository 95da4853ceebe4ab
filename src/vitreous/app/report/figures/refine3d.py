"""Pictures of a 3D refinement: FSC, map, views covered, how it converged."""

from __future__ import annotations

import re
from pathlib import Path

from matplotlib.ticker import FormatStrFormatter, NullFormatter

from vitreous.app.report.drawing import COLOURS, INK, central_slices, new_figure, plot_fsc, show_slice, show_views
from vitreous.app.report.figure import Figure
from vitreous.io.mrc import read_map
from vitreous.io.relion import read_dataset, read_table


def figures(job_directory: Path, project: Path) -> list[Figure]:
    """Four pictures; before the end those of the last whole iteration, without the map of both halves."""
    models = sorted(job_directory.glob("run_it*_half1_model.star"))
    if not models:
        return []
    is_done = (job_directory / "run_optimiser.star").exists()
    model = job_directory / "run_model.star" if is_done else models[-1]
    data = job_directory / "run_data.star" if is_done else Path(str(models[-1]).replace("_half1_model", "_data"))
    map_path = job_directory / "run_class001.mrc"
    if not is_done:
        map_path = Path(str(models[-1]).replace("_model.star", "_class001.mrc"))
    return [_fsc(model), _slices(map_path), _views(data, model, is_done), _course(models)]


def _fsc(model: Path) -> Figure:
    curve = read_table(model, "model_class_1")
    resolution = float(read_table(model, "model_general")["rlnCurrentResolution"][0])
    figure = new_figure(6.5, 4)
    axes = figure.subplots()
    plot_fsc(axes, curve["frequency"], {"half-maps": curve["gold_standard_fsc"]}, resolution)
    caption = (
        f"Gold-standard FSC of the two independent half-maps: {resolution:.2f} Å at 0.143. It should fall smoothly and "
        "stay about zero; a curve that does not reach zero at Nyquist asks for smaller pixels, or for a look at "
        "duplicate particles."
    )
    return Figure.from_matplotlib(figure, "fsc", "Fourier shell correlation", caption)


def _slices(path: Path) -> Figure:
    volume = read_map(path)
    density = volume.density.numpy()
    figure = new_figure(9.6, 6.6)
    axes = figure.subplots(2, 3)
    views = [("xy", density.sum(0)), ("xz", density.sum(1)), ("yz", density.sum(2))]
    for place, (name, image) in enumerate(central_slices(density)):
        show_slice(axes[0, place], image, f"slice {name}", volume.voxel_size)
    for place, (name, image) in enumerate(views):
        show_slice(axes[1, place], image, f"projection {name}", volume.voxel_size)
    caption = (
        "Central slices and projections of the map (not sharpened). Protein should stand out from an even solvent; "
        "streaks point to views that are missing, a halo to a mask that is too tight."
    )
    return Figure.from_matplotlib(figure, "map", "The map", caption)


def _views(data: Path, model: Path, is_done: bool) -> Figure:
    rows = read_dataset(data).rows
    figure = new_figure(9.6, 3.6)
    axes = figure.add_subplot(1, 2, 1, projection="mollweide")
    show_views(axes, rows["rot"], rows["tilt"])
    axes.set_title("views of the particles", fontsize=9, color=INK)
    certainty = figure.add_subplot(1, 2, 2)
    certainty.hist(rows["max_probability"], bins=40, range=(0, 1), color=COLOURS[0])
    certainty.set(xlabel="probability of the best pose", ylabel="particles")
    classes = read_table(model, "model_classes")
    accuracy = float(classes["accuracy_rotations"][0]), float(classes["accuracy_translations"][0])
    caption = (
        "Left: directions of view within the asymmetric unit (equal-area projection), darker where there are more "
        "particles; an empty band means a poorly resolved direction in the map. Right: how sure each pose is. "
        f"Estimated accuracy of the poses: {accuracy[0]:.2f}° and {accuracy[1]:.2f} Å."
    )
    return Figure.from_matplotlib(figure, "views", "Orientations" if is_done else "Orientations so far", caption)


def _course(models: list[Path]) -> Figure:
    course: dict[str, list[float]] = {name: [] for name in ("iteration", "resolution", "sure", "step", "moved", "acc")}
    for path in models:
        match = re.search(r"_it(\d+)_", path.name)
        general, classes = read_table(path, "model_general"), read_table(path, "model_classes")
        optimiser = read_table(Path(str(path).replace("_half1_model", "_optimiser")), "optimiser_general")
        sampling = read_table(Path(str(path).replace("_half1_model", "_sampling")), "sampling_general")
        course["iteration"].append(int(match.group(1)) if match else len(course["iteration"]) + 1)
        course["resolution"].append(float(general["rlnCurrentResolution"][0]))
        course["sure"].append(float(general["rlnAveragePmax"][0]))
        fine = 2.0 ** int(optimiser["rlnAdaptiveOversampleOrder"][0])
        course["step"].append(float(sampling["rlnPsiStep"][0]) / fine)
        course["moved"].append(float(optimiser["rlnChangesOptimalOrientations"][0]))
        course["acc"].append(float(classes["accuracy_rotations"][0]))
    figure = new_figure(9.6, 2.9)
    axes = figure.subplots(1, 3)
    iterations = course["iteration"]
    axes[0].plot(iterations, course["resolution"], "o-", color=COLOURS[0], markersize=3)
    axes[0].set_title("resolution (Å)", fontsize=9)
    axes[0].set_ylim(bottom=0)
    for name, label, colour in (
        ("moved", "poses moved", COLOURS[1]),
        ("step", "sampling step", COLOURS[0]),
        ("acc", "estimated accuracy", COLOURS[3]),
    ):
        axes[1].plot(iterations, course[name], "o-", color=colour, markersize=3, label=label)
    axes[1].set_yscale("log")
    axes[1].yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes[1].yaxis.set_minor_formatter(NullFormatter())
    axes[1].set_title("angles (degrees)", fontsize=9)
    axes[1].legend(frameon=False, fontsize=7)
    axes[2].plot(iterations, course["sure"], "o-", color=COLOURS[4], markersize=3)
    axes[2].set_title("mean largest probability", fontsize=9)
    axes[2].set_ylim(0, 1)
    for panel in axes:
        panel.set_xlabel("iteration")
    caption = (
        "Resolution improves until the data give no more; the sampling step is halved whenever neither resolution nor "
        "poses improve, down to about the estimated accuracy of the angles; the last iteration joins the halves."
    )
    return Figure.from_matplotlib(figure, "course", "Convergence", caption)

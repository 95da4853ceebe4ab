from __future__ import annotations

import numpy as np
import pytest
import torch

from vitreous.core.ctf import Defocus, Microscope, ctf
from vitreous.core.fourier import shell_mean
from vitreous.data.motion import Motion
from vitreous.methods.simulation.detector import Detector, DetectorSettings, perfect_detector, random_detector
from vitreous.methods.simulation.exposure import Acquisition, Specimen, record_micrograph, record_movie
from vitreous.methods.simulation.ferritin import ferritin
from vitreous.methods.simulation.ice import Ice
from vitreous.methods.simulation.motion import no_motion
from vitreous.methods.simulation.optics import Envelope, Focus
from vitreous.methods.simulation.particles import Poses, particle_images, particle_signal
from vitreous.methods.simulation.potential import Projector
from vitreous.methods.simulation.scene import Scene

SCOPE = Microscope(300.0, 2.7, 0.1)
NO_ICE = Ice(0.0)


@pytest.fixture(scope="module")
def projector():
    return Projector(ferritin(), 80, 2.2)


def scene(*points, heights=None):
    n = len(points)
    return Scene(
        np.array(points, dtype=np.float64).reshape(n, 2),
        torch.eye(3, dtype=torch.float64).expand(n, 3, 3),
        np.zeros(n) if heights is None else np.array(heights, dtype=np.float64),
    )


def correlation(a, b):
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


def test_dose_is_what_was_asked_for(projector):
    acquisition = Acquisition((200, 240), 2.0, SCOPE, dose=30.0, n_frames=6, ice=NO_ICE)
    rng = np.random.default_rng(0)
    empty = Specimen(projector, scene(), Focus(15000, 15000), acquisition, rng)
    movie = record_movie(empty, no_motion(6, (200, 240)), acquisition, perfect_detector((200, 240)), rng)
    assert movie.shape == (6, 200, 240)
    assert movie.dtype == np.uint16
    # 30 e/A^2 x 4 A^2 / 6 frames = 20 a pixel; Poisson: the variance is the mean.
    assert movie.mean() == pytest.approx(20.0, rel=0.005)
    assert movie.var() == pytest.approx(20.0, rel=0.02)
    assert movie.sum(0).var() == pytest.approx(120.0, rel=0.03)


def test_particle_is_dark_and_where_it_should_be(projector):
    acquisition = Acquisition((200, 240), 2.2, SCOPE, ice=NO_ICE)
    image = Specimen(
        projector, scene([80.0, 120.0]), Focus(15000, 15000), acquisition, np.random.default_rng(0)
    ).micrograph()
    yy, xx = np.indices(image.shape)
    near = (yy - 120) ** 2 + (xx - 80) ** 2 < 28**2
    far = (yy - 120) ** 2 + (xx - 80) ** 2 > 60**2
    assert image[near].mean() < image[far].mean() - 0.01
    weight = np.clip(image[far].mean() - image, 0, None) * ((yy - 120) ** 2 + (xx - 80) ** 2 < 40**2)
    assert (weight * xx).sum() / weight.sum() == pytest.approx(80, abs=0.3)
    assert (weight * yy).sum() / weight.sum() == pytest.approx(120, abs=0.3)


def test_micrograph_and_particle_image_agree(projector):
    """The two routes to a picture: cut out of a micrograph, or made alone (there with protein white)."""
    acquisition = Acquisition((240, 240), 2.2, SCOPE, ice=NO_ICE, envelope=Envelope(60.0))
    focus = Focus(13000, 12000, 30.0)
    micrograph = Specimen(projector, scene([120.25, 119.5]), focus, acquisition, np.random.default_rng(0)).micrograph()
    cut = micrograph[80:160, 80:160]
    poses = Poses(torch.eye(3)[None], torch.tensor([[0.25, -0.5]]))
    alone = particle_signal(projector, poses, focus, acquisition)[0, 80:160, 80:160].numpy()
    assert correlation(cut, -alone) > 0.999
    assert np.std(cut) == pytest.approx(np.std(alone), rel=0.01)


def test_height_adds_to_the_defocus(projector):
    acquisition = Acquisition((200, 200), 2.2, SCOPE, ice=NO_ICE)
    raised, focused = (
        Specimen(
            projector, scene([100, 100], heights=[h]), Focus(u, u), acquisition, np.random.default_rng(0)
        ).micrograph()
        for h, u in ((500.0, 15000.0), (0.0, 15500.0))
    )
    assert np.abs(raised - focused).max() < 1e-5


def test_movie_frames_move_and_fade(projector):
    acquisition = Acquisition(
        (200, 200), 2.2, SCOPE, dose=60.0, n_frames=3, ice=NO_ICE, envelope=Envelope(0.0, 0.0, 0.0)
    )
    specimen = Specimen(projector, scene([100, 100]), Focus(15000, 15000), acquisition, np.random.default_rng(0))
    shifts = np.array([[0.0, 0.0], [-4.0, 3.0], [-4.0, 3.0]])  # RELION's sign: content moves by (+4, -3)
    frames = list(specimen.frames(Motion((200, 200), shifts, None)))
    back = np.roll(frames[2], (3, -4), (0, 1))
    inner = slice(40, 160)
    assert correlation(back[inner, inner], frames[0][inner, inner]) > 0.9
    assert correlation(back[inner, inner], frames[0][inner, inner]) > correlation(
        frames[2][inner, inner], frames[0][inner, inner]
    )
    spectra = [shell_mean(torch.fft.rfft2(torch.from_numpy(f - f.mean())).abs().double() ** 2, 200) for f in frames]
    # 40 e/A^2 between the first and the last frame: damage shows at 8 A and hardly at 60 A.
    high, low = 55, 7
    assert spectra[2][high] < 0.2 * spectra[0][high]
    assert spectra[2][low] > 0.7 * spectra[0][low]


def test_gain_makes_counts_even_again():
    shape = (256, 256)
    settings = DetectorSettings(gain_spread=0.05, n_hot=5, n_dead=7, n_columns=2)
    detector = random_detector(shape, settings, np.random.default_rng(1))
    rng = np.random.default_rng(2)
    counts = sum(detector.count(np.full(shape, 50.0, np.float32), rng).astype(np.float64) for _ in range(40)) / 40
    good = (detector.gain > 0) & (detector.hot == 0)
    assert good.sum() >= 256 * 256 - 12 - 2 * 256
    assert len(detector.columns) == 2
    assert not detector.gain[:, list(detector.columns)].any()
    corrected = (counts * detector.gain)[good]
    assert corrected.mean() == pytest.approx(50.0, rel=0.002)
    assert corrected.std() < 1.1 * np.sqrt(50 / 40) * 1.02
    assert counts[good].std() > 1.5 * corrected.std()
    assert counts[detector.hot > 0].min() > 20 * 50


def test_ice_shows_thon_rings_at_the_true_defocus(projector):
    """Radial fit of the power spectrum of bare ice recovers the defocus."""
    true = 11300.0
    acquisition = Acquisition((512, 512), 1.5, SCOPE, dose=40.0, ice=Ice(300.0))
    rng = np.random.default_rng(7)
    specimen = Specimen(projector, scene(), Focus(true, true), acquisition, rng)
    image = torch.from_numpy(record_micrograph(specimen, acquisition, rng))
    spectrum = shell_mean(torch.fft.rfft2(image - image.mean()).abs().double() ** 2, 512)
    shells = torch.arange(257)
    k = shells / (512 * 1.5)
    band = (k > 1 / 25) & (k < 1 / 4.5)
    # Background: a smooth curve through the spectrum (polynomial of its logarithm).
    x = ((k[band] - k[band].mean()) / k[band].std()).numpy()
    logarithm = np.log(spectrum[band].numpy())
    rings = logarithm - np.polyval(np.polyfit(x, logarithm, 6), x)
    scores = {}
    for trial in np.arange(8000, 16000, 20.0):
        one = torch.tensor([trial], dtype=torch.float64)
        zero = torch.zeros(1, dtype=torch.float64)
        curve = ctf((512, 512), 1.5, SCOPE, Defocus(one, one, zero, zero), dtype=torch.float64)[0, 0, :257]
        model = curve[band].numpy() ** 2
        scores[trial] = correlation(rings, model - np.polyval(np.polyfit(x, model, 6), x))
    best = max(scores, key=scores.__getitem__)
    assert abs(best - true) < 100
    assert scores[best] > 0.5


def test_particle_images_are_white_normalised_and_reproducible(projector):
    acquisition = Acquisition((192, 192), 2.2, SCOPE, dose=40.0)
    poses = Poses(torch.eye(3).expand(4, 3, 3), torch.zeros(4, 2))
    focus = Focus(15000, 15000)
    images, again = (
        particle_images(projector, poses, focus, acquisition, box=96, rng=np.random.default_rng(3)) for _ in range(2)
    )
    assert images.shape == (4, 96, 96)
    assert torch.equal(images, again)
    yy, xx = np.indices((96, 96)) - 48
    background = torch.from_numpy(np.hypot(yy, xx) > 0.75 * 48)
    assert images[:, background].mean().abs() < 1e-4
    assert images[:, background].std() == pytest.approx(1.0, abs=1e-3)
    inside = torch.from_numpy(np.hypot(yy, xx) < 25)
    assert images[:, inside].mean() > 0.2


def test_dead_detector_counts_nothing():
    dead = Detector(np.zeros((8, 8), np.float32), np.zeros((8, 8), np.float32))
    assert not dead.count(np.full((8, 8), 9.0, np.float32), np.random.default_rng(0)).any()
    assert not dead.gain.any()

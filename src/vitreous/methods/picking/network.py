"""A small fully convolutional network that tells, for each pixel of a micrograph, how much it looks like a particle.

No layer pads and none subsamples, so a patch and a whole micrograph get the same numbers; there is no batch
normalisation, whose averages would tell labelled patches from the others. Dilated layers let it see two and a half
particle diameters: a particle with its surroundings. Yu and Koltun (2016) ICLR; Bepler et al. (2019) Nat. Methods
16, 1153.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

PIXELS_PER_DIAMETER = 14.0
_CHANNELS = (16, 32, 32, 32, 32)
_KERNELS = (5, 3, 3, 3, 3)
_DILATIONS = (1, 1, 2, 4, 8)
# Grey values beyond are gold, dirt or the detector: more of the same tells nothing.
_GREATEST = 6.0
_TILE_ROWS = 512


class PickerNetwork(nn.Module):
    """Log-odds of particle against anything else at the centre of each window of `field` pixels."""

    field = 1 + sum((kernel - 1) * dilation for kernel, dilation in zip(_KERNELS, _DILATIONS, strict=True))
    margin = field // 2

    def __init__(self, generator: torch.Generator | None = None, prior: float = 0.5) -> None:
        """Random weights, under which every pixel is a particle with about the prior's chance."""
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for channels, kernel, dilation in zip(_CHANNELS, _KERNELS, _DILATIONS, strict=True):
            layers += [nn.Conv2d(before, channels, kernel, dilation=dilation), nn.ReLU()]
            before = channels
        last = nn.Conv2d(before, 1, 1)
        assert last.bias is not None
        self.layers = nn.Sequential(*layers, last)
        with torch.no_grad():
            for layer in self.layers:
                if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                    layer.bias.zero_()
            last.weight *= 0.1
            last.bias += math.log(prior / (1.0 - prior))

    def forward(self, images: Float[Tensor, "n height width"]) -> Float[Tensor, "n h w"]:
        """Log-odds where the window fits: `margin` pixels less on each side."""
        scores: Tensor = self.layers(images.clamp(-_GREATEST, _GREATEST)[:, None])[:, 0]
        return scores


def padded(image: Float[Tensor, "height width"]) -> Float[Tensor, "h w"]:
    """A micrograph with its mirror image around it, so that every pixel gets log-odds.

    Raises ValueError for one smaller than the margin.
    """
    margin = PickerNetwork.margin
    if min(image.shape) <= margin:
        raise ValueError(f"a micrograph of {tuple(image.shape)} working pixels is too small for the picker")
    return nn.functional.pad(image[None, None], (margin,) * 4, mode="reflect")[0, 0]


@torch.no_grad()
def logit_map(
    network: PickerNetwork, image: Float[np.ndarray, "height width"], device: torch.device
) -> Float[np.ndarray, "height width"]:
    """Log-odds at every pixel of an evened-out micrograph (particles bright, local spread 1), by strips of rows."""
    whole = padded(torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)))
    strips = []
    for start in range(0, image.shape[0], _TILE_ROWS):
        strip = whole[start : start + _TILE_ROWS + 2 * PickerNetwork.margin].to(device)
        strips.append(network(strip[None])[0].cpu())
    return torch.cat(strips).numpy().astype(np.float64)

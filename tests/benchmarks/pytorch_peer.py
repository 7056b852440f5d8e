"""The same CNN iteration in PyTorch, for comparison: `python -m tests.benchmarks.pytorch_peer`.

It needs PyTorch and nothing else of the project; use an environment of its own:

    pip install torch==2.13.0
    python -m tests.benchmarks.pytorch_peer --batch_size 64 --steps 10

The networks of the specification's section 2 at 32x32, `spectral_norm` on every layer of the
discriminator, hinge losses, Adam, written as a PyTorch user would: real and generated images pass
the discriminator apart, the generator runs again for its own step, no summaries.
"""

import argparse
import itertools
import json
import statistics
import time

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm


def generator():
    layers = [nn.Linear(128, 4 * 4 * 512), nn.BatchNorm1d(4 * 4 * 512), nn.ReLU()]
    layers.append(nn.Unflatten(1, (512, 4, 4)))
    for inputs, outputs in ((512, 256), (256, 128), (128, 64)):
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(64, 3, 3, 1, 1), nn.Tanh())


def discriminator():
    layers = []
    widths = (3, 64, 64, 128, 128, 256, 256)
    for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        size, stride = ((3, 1), (4, 2))[index % 2]
        conv = nn.Conv2d(inputs, outputs, size, stride, 1)
        layers += [spectral_norm(conv), nn.LeakyReLU(0.1)]
    layers += [spectral_norm(nn.Conv2d(256, 512, 3, 1, 1)), nn.LeakyReLU(0.1), nn.Flatten()]
    return nn.Sequential(*layers, spectral_norm(nn.Linear(4 * 4 * 512, 1)))


def iteration(g, d, g_adam, d_adam, images):
    latents = torch.randn(len(images), 128)
    with torch.no_grad():
        fake = g(latents)
    d_adam.zero_grad()
    loss = torch.relu(1 - d(images)).mean() + torch.relu(1 + d(fake)).mean()
    loss.backward()
    d_adam.step()
    g_adam.zero_grad()
    d.requires_grad_(False)  # its gradients are not needed here
    g_loss = -d(g(latents)).mean()
    g_loss.backward()
    d.requires_grad_(True)
    g_adam.step()
    return loss.item(), g_loss.item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--channels_last", action="store_true", help="PyTorch's NHWC layout")
    arguments = parser.parse_args()
    g, d = generator(), discriminator()
    if arguments.channels_last:
        g, d = g.to(memory_format=torch.channels_last), d.to(memory_format=torch.channels_last)
    g_adam, d_adam = (torch.optim.Adam(m.parameters(), 1e-4, (0.5, 0.999)) for m in (g, d))
    seconds = []
    for _ in range(arguments.steps + 2):
        images = torch.rand(arguments.batch_size, 3, 32, 32) * 2 - 1
        if arguments.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        start = time.perf_counter()
        iteration(g, d, g_adam, d_adam, images)
        seconds.append(time.perf_counter() - start)
    timed = seconds[2:]
    spread = {"min": min(timed), "median": statistics.median(timed), "max": max(timed)}
    print(json.dumps({"step": f"torch {torch.__version__}", "seconds_per_iteration": spread}))


if __name__ == "__main__":
    main()

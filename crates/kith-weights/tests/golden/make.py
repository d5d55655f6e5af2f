"""Makes the golden files of kith-weights: a narrow ResNet-18 as PyTorch saves it, and the features that PyTorch computes from it.

    pip install torch torchvision safetensors
    python3 crates/kith-weights/tests/golden/make.py

The network is torchvision's with an eighth of the channels, BatchNorm statistics from a few batches, weights and shifts of BatchNorm that are not 1 and
0, prefixes as training wrappers leave them, and the head of a classifier. Its state dict is an `OrderedDict` with versions of modules (`_metadata`), as
`torch.save(net.state_dict(), path)` writes it. All large weights are views of one storage, so that the file stays small.
"""

import math
import pathlib

import torch
from safetensors.torch import save_file
from torchvision.models.resnet import BasicBlock, ResNet

FOLDER = pathlib.Path(__file__).parent
SIDE = 32


class Within(torch.nn.Module):
    """A network under a name: what puts a prefix before its keys."""

    def __init__(self, name, net):
        super().__init__()
        self.add_module(name, net)


class Narrow(ResNet):
    """ResNet-18 with 8 channels in the first stage."""

    @property
    def inplanes(self):
        return self.__dict__["narrow"]

    @inplanes.setter
    def inplanes(self, value):
        # The first value is the stem's 64; those after it come from _make_layer, which has narrow ones already.
        self.__dict__["narrow"] = value if "narrow" in self.__dict__ else 8

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        return super()._make_layer(block, planes // 8, blocks, stride, dilate)


def network():
    """The network with lively statistics, in evaluation mode."""
    torch.manual_seed(7)
    net = Narrow(BasicBlock, [2, 2, 2, 2])
    net.fc = torch.nn.Linear(64, 10)
    pool = torch.randn(40_000) * 0.1
    for number, conv in enumerate(m for m in net.modules() if isinstance(m, torch.nn.Conv2d)):
        start = 97 * number
        size = conv.weight.numel()
        if size + start <= pool.numel():
            conv.weight = torch.nn.Parameter(pool[start : start + size].view(conv.weight.shape), requires_grad=False)
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias, 0.0, 0.3)
    net.train()
    with torch.no_grad():
        for _ in range(20):
            net(1.5 * torch.randn(16, 3, SIDE, SIDE) + 0.4)
    return net.eval()


def pixels():
    """Two images, [2, 3, side, side], by a formula that the test repeats."""
    value = lambda image, channel, y, x: math.sin(0.9 * image + 1.3 * channel + 0.21 * y + 0.13 * x) * 2.0
    rows = range(SIDE)
    return torch.tensor([[[[value(i, c, y, x) for x in rows] for y in rows] for c in range(3)] for i in range(2)], dtype=torch.float32)


def main():
    net = network()
    torch.save(Within("module", Within("backbone", net)).state_dict(), FOLDER / "narrow.pth")
    net.fc = torch.nn.Identity()
    with torch.no_grad():
        save_file({"features": net(pixels())}, FOLDER / "features.safetensors")


if __name__ == "__main__":
    main()

"""Time of every network and its counterpart in MONAI, forward and forward with backward.

python Testing/Benchmarks/bench_networks.py [--size 48] [--batch 1] [--device cpu] [--threads 1] [--repeats 5] [--json]

Counterparts get the same widths and, where they allow it, the same strides, norm and number of convolutions; the
number of weights shows how close the two are. Calls alternate, so that other load on the machine affects both; the
figures are medians.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter

import monai
import torch
from monai.networks import nets
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from UNetSegmentationLib.networks import NETWORKS, build_network

WIDTHS = (16, 32, 64, 128, 256)
CLASSES = 4
# As deep as the counterpart.
OPTIONS = {
    "vnet": {"encoder_convs": (1, 1, 2, 3, 2), "decoder_convs": (1, 1, 2, 2), "norm": "batch", "activation": "elu"},
    "nnunet_residual": {"encoder_convs": (1,) * 5, "decoder_convs": (2,) * 4},
}


def counterparts(size: int) -> dict[str, Callable[[], nn.Module]]:
    """Return MONAI's network for each of ours that has one."""
    shape = {"spatial_dims": 3, "in_channels": 1, "out_channels": CLASSES}
    strides = (1, 2, 2, 2, 2)
    dynamic = {"kernel_size": (3,) * 5, "strides": strides, "upsample_kernel_size": strides[1:], "filters": WIDTHS}
    table: dict[str, Callable[[], nn.Module]] = {
        "unet": lambda: nets.BasicUNet(3, 1, CLASSES, features=(*WIDTHS, WIDTHS[0])),
        "vnet": lambda: nets.VNet(3, 1, CLASSES),
        "unet_plus_plus": lambda: nets.BasicUNetPlusPlus(3, 1, CLASSES, features=(*WIDTHS, WIDTHS[0])),
        "attention_unet": lambda: nets.AttentionUnet(3, 1, CLASSES, channels=WIDTHS, strides=strides[1:]),
        "nnunet_plain": lambda: nets.DynUNet(**shape, **dynamic),
        "nnunet_residual": lambda: nets.DynUNet(**shape, **dynamic, res_block=True),
    }
    if find_spec("einops"):  # MONAI's transformers need it
        shape_of_tokens = {"feature_size": 16, "hidden_size": 192, "mlp_dim": 576, "num_heads": 4}
        table["primus_unet"] = lambda: nets.UNETR(1, CLASSES, (size,) * 3, **shape_of_tokens)
    return table


def measure(calls: list[Callable[[], object]], *, repeats: int, device: torch.device) -> list[float]:
    """Return the median seconds of each call; the calls alternate."""
    seconds: list[list[float]] = [[] for _ in calls]
    for repeat in range(repeats + 1):
        for index, call in enumerate(calls):
            began = perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if repeat:
                seconds[index].append(perf_counter() - began)
    return [median(values) for values in seconds]


def forward(network: nn.Module, image: torch.Tensor) -> Callable[[], object]:
    """Return a call that predicts."""

    def call() -> None:
        with torch.inference_mode():
            network.eval()(image)

    return call


def forward_backward(network: nn.Module, image: torch.Tensor) -> Callable[[], object]:
    """Return a call that takes the gradient of the summed output."""

    def call() -> None:
        output = network.train()(image)
        (output[0] if isinstance(output, list | tuple) else output).square().mean().backward()

    return call


def compare(name: str, arguments: argparse.Namespace, device: torch.device) -> dict[str, object]:
    """Return the figures of one network and its counterpart, if any."""
    config = {
        "in_channels": 4 if name == "brain_tumour" else 1,
        "num_classes": CLASSES,
        "features_per_stage": WIDTHS,
        **OPTIONS.get(name, {}),
    }
    ours = build_network(name, config).to(device)
    image = torch.randn(arguments.batch, ours.config.in_channels, *(arguments.size,) * 3, device=device)
    networks = [ours]
    peer = counterparts(arguments.size).get(name)
    if peer:
        networks.append(peer().to(device))
    row: dict[str, object] = {"network": name, "peer": type(networks[1]).__name__ if peer else None}
    row["weights"] = [sum(p.numel() for p in network.parameters()) for network in networks]
    for key, make in (("forward_s", forward), ("step_s", forward_backward)):
        calls = [make(network, image) for network in networks]
        row[key] = measure(calls, repeats=arguments.repeats, device=device)
    return row


def format_table(rows: list[dict[str, object]]) -> str:
    """Return the rows as Markdown: ours, theirs and the ratio theirs / ours."""

    def pair(values: list[float], scale: float, digits: int) -> str:
        texts = [f"{value / scale:.{digits}f}" for value in values]
        return " | ".join([*texts, "-"][:2])

    def ratio(values: list[float]) -> str:
        return f"{values[1] / values[0]:.2f}" if len(values) > 1 else "-"

    lines = [
        "| network | MONAI | weights (M) | theirs | forward (ms) | theirs | ratio | step (ms) | theirs | ratio |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = [str(row["network"]), str(row["peer"] or "-"), pair(row["weights"], 1e6, 2)]
        for key in ("forward_s", "step_s"):
            cells += [pair(row[key], 1e-3, 0), ratio(row[key])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=48, help="voxels along each axis, a multiple of 16")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    rows = [compare(name, arguments, device) for name in arguments.networks]
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    about = f"{machine or platform.machine()}, torch {torch.__version__}, MONAI {monai.__version__}, float32"
    setting = f"{arguments.batch} x {arguments.size}^3, {arguments.threads} thread(s), median of {arguments.repeats}"
    if arguments.json:
        text = json.dumps({"machine": about, "setting": setting, "rows": rows}, indent=1)
    else:
        text = f"{about}; {setting}\n\n{format_table(rows)}"
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()

"""Prediction by the 2.5D network against a loop of frames, and against a stock 2d network of equal FLOPs, in one run.

    python benchmarks/plan25d.py [--depth 150] [--device cuda]

The network is the paper's (resnet50, DeepLabv3 at stride 8, 5 slices of 4 channels of 256 x 256), with random weights.
Prints frames per second of

- the volume: all slices through DeepLabV3For25D, as the predictor calls it;
- a loop of 5-slice volumes through the same network, of which the centre is kept;
- a loop of single stacks through its 2D network;
- nnU-Net's predictor without mirroring: our 2.5d configuration, and a 2d U-Net of equal FLOPs per slice.

On a GPU wall-clock time, on a CPU this process's CPU time, which other programs disturb less.
"""

import argparse
import math
import time
from collections.abc import Callable

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nnunet_lopsided.architectures import DeepLabV3For25D

CHANNELS, N_SLICES, SIZE = 4, 5, 256
DATASET = {"channel_names": {str(i): "MR" for i in range(CHANNELS)}, "labels": {"background": 0, "lesion": 1}}


def giga_flops(network: nn.Module, image: torch.Tensor) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return counter.get_total_flops() / 1e9


def unet(width: int, device: torch.device) -> nn.Module:
    """nnU-Net's 2d U-Net with this many features at full resolution."""
    features = [min(512, width * 2**i) for i in range(7)]
    with device:
        network = PlainConvUNet(
            CHANNELS,
            7,
            features,
            nn.Conv2d,
            3,
            [1] + [2] * 6,
            2,
            2,
            2,
            True,
            nn.InstanceNorm2d,
            {"affine": True},
            nonlin=nn.LeakyReLU,
        )
    network.decoder.deep_supervision = False
    return network.eval()


def unet_of(target: float, device: torch.device) -> nn.Module:
    """The 2d U-Net whose FLOPs per slice are nearest to ``target``."""
    meta = torch.device("meta")
    image = torch.zeros(1, CHANNELS, SIZE, SIZE, device=meta)
    width = min(range(16, 129, 4), key=lambda w: abs(giga_flops(unet(w, meta), image) - target))
    return unet(width, device)


def predictor(network: nn.Module, patch: list[int], device: torch.device) -> nnUNetPredictor:
    plans = {
        "dataset_name": "Dataset001_Benchmark",
        "plans_name": "nnUNetPlans",
        "label_manager": "LabelManager",
        "configurations": {"it": {"patch_size": patch, "architecture": {}}},
    }
    manager = PlansManager(plans)
    made = nnUNetPredictor(use_mirroring=False, device=device, allow_tqdm=False, perform_everything_on_device=True)
    made.manual_initialization(network, manager, manager.get_configuration("it"), None, DATASET, "none", None)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=150, help="slices of the volume (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, help="threads of PyTorch on a CPU")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device, depth = torch.device(arguments.device), arguments.depth
    torch.backends.cudnn.benchmark = True
    network = DeepLabV3For25D(CHANNELS, 2, N_SLICES).to(device).eval()
    volume = torch.randn(CHANNELS, depth, SIZE, SIZE, device=device)
    padded = nn.functional.pad(volume, (0, 0, 0, 0, N_SLICES // 2, N_SLICES // 2))
    stacks = [padded[None, :, z : z + N_SLICES].contiguous() for z in range(depth)]
    flops = giga_flops(network.network, stacks[0].transpose(1, 2).flatten(1, 2))  # of one slice
    stock_network = unet_of(flops, device)
    # As lopsided-plan and our trainers set it up: a window with margins, which are not computed.
    network.skip_padding, network.padding_beyond = True, (SIZE, SIZE)
    window = [math.ceil(1.5 * depth), SIZE * 5 // 4, SIZE * 5 // 4]
    ours, stock = predictor(network, window, device), predictor(stock_network, [SIZE, SIZE], device)

    def loop(one: Callable[[torch.Tensor], torch.Tensor]) -> None:
        for stack in stacks:
            one(stack)

    contenders: dict[str, Callable[[], object]] = {
        "the volume": lambda: network(volume[None]),
        "loop of 5-slice volumes": lambda: loop(network),
        "loop of single stacks": lambda: loop(lambda s: network.network(s.transpose(1, 2).flatten(1, 2))),
        "nnU-Net's predictor, 2.5d": lambda: ours.predict_sliding_window_return_logits(volume.cpu()),
        "nnU-Net's predictor, 2d U-Net": lambda: stock.predict_sliding_window_return_logits(volume.cpu()),
    }
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    best: dict[str, float] = {}
    with torch.inference_mode(), torch.autocast("cuda", enabled=device.type == "cuda"):
        for repeat in range(arguments.repeats + (device.type == "cuda")):
            for name, run in contenders.items():
                start = clock()
                run()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if repeat or device.type != "cuda":  # the first on a GPU is a warm-up
                    best[name] = min(best.get(name, float("inf")), clock() - start)
    unet_flops = giga_flops(stock_network, torch.zeros(1, CHANNELS, SIZE, SIZE, device=device))
    print(f"{device}, {torch.get_num_threads()} threads, {depth} slices")
    print(f"GFLOP per slice: 2.5d {flops:.1f}, 2d U-Net {unet_flops:.1f}")
    for name, seconds in best.items():
        print(f"{name:30} {depth / seconds:8.2f} frames/s {seconds:8.2f} s per volume")
    first = best["the volume"]
    for name in ("loop of 5-slice volumes", "loop of single stacks"):
        print(f"the volume is {best[name] / first:.2f} x as fast as the {name}")
    ratio = best["nnU-Net's predictor, 2d U-Net"] / best["nnU-Net's predictor, 2.5d"]
    print(f"in nnU-Net's predictor 2.5d is {ratio:.2f} x as fast as the 2d U-Net")


if __name__ == "__main__":
    main()

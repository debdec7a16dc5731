"""Parts of benchmarks/gpu.py: a scan through 2.5d, and magnified predictions as an audit makes them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from gpu_parts_training import DATASET, started, wait
from gpu_running import Part, Report, Settings, aimed, rounded
from numpy.typing import NDArray

CHANNELS, N_SLICES = 4, 5
_LINEAR = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
_PLANS: dict[str, Any] = {
    "dataset_name": "Dataset001_Scan",
    "plans_name": "nnUNetPlans",
    "label_manager": "LabelManager",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "image_reader_writer": "SimpleITKIO",
    "foreground_intensity_properties_per_channel": {str(i): {} for i in range(CHANNELS)},
}
_RESAMPLING = {
    f"resampling_fn_{of}{end}": value
    for of, kwargs in (
        ("data", {**_LINEAR, "order": 3}),
        ("seg", {**_LINEAR, "is_seg": True}),
        ("probabilities", _LINEAR),
    )
    for end, value in (("", "resample_data_or_seg_to_shape"), ("_kwargs", kwargs))
}
_DATASET_JSON = {
    "channel_names": {str(i): "MR" for i in range(CHANNELS)},
    "labels": {"background": 0, "lesion": 1},
    "file_ending": ".nii.gz",
}


def prediction(settings: Settings, report: Report) -> None:
    """One scan of 150 x 256 x 256 x 4 on the planned grid, from and to images of other voxels."""
    import SimpleITK
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_lopsided.architectures import DeepLabV3For25D
    from nnunet_lopsided.nnunet.torch_resampling import resampled

    device = torch.device(settings.device)
    depth, size, original = (8, 32, 36) if settings.rehearsal else (150, 256, 284)
    repeats = 1 if settings.rehearsal else 3
    torch.backends.cudnn.benchmark = True
    encoder: dict[str, Any] = {"encoder": "resnet18", "output_stride": 16} if settings.rehearsal else {}
    network = DeepLabV3For25D(CHANNELS, 2, N_SLICES, **encoder).to(device).eval()
    network.skip_padding, network.padding_beyond = True, (size, size)
    window = [math.ceil(1.5 * depth), size * 5 // 4, size * 5 // 4]
    planned = {
        **_RESAMPLING,
        "patch_size": window,
        "spacing": [1.0, 1.0, 1.0],
        "preprocessor_name": "DefaultPreprocessor",
        "normalization_schemes": ["ZScoreNormalization"] * CHANNELS,
        "use_mask_for_norm": [False] * CHANNELS,
        "architecture": {},
    }
    plans = PlansManager({**_PLANS, "configurations": {"2.5d": planned}})
    configuration = plans.get_configuration("2.5d")
    predictor = nnUNetPredictor(
        use_mirroring=False, device=device, allow_tqdm=False, perform_everything_on_device=device.type == "cuda"
    )
    predictor.manual_initialization(network, plans, configuration, None, _DATASET_JSON, "none", (1, 2))
    # Made anew by the reader for every use: preprocessing adds to the properties.
    image = np.random.default_rng(0).random((CHANNELS, depth, original, original), np.float32)
    folder = settings.scratch / "scan"
    folder.mkdir()
    files = []
    for channel in range(CHANNELS):
        written = SimpleITK.GetImageFromArray(image[channel])
        written.SetSpacing([size / original, size / original, 1.0])
        files.append(str(folder / f"scan_{channel:04d}.nii.gz"))
        SimpleITK.WriteImage(written, files[-1])

    seconds: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        wait(settings.device)
        seconds.setdefault(name, []).append(time.perf_counter() - start)
        return result

    io = plans.image_reader_writer_class()
    preprocessor = configuration.preprocessor_class(verbose=False)
    for repeat in range(repeats + 1):
        if repeat <= 1:
            seconds.clear()  # of the warm-up
        read, properties = timed("reading", partial(io.read_images, files))
        data, _, properties = timed(
            "preparing: cropping, resampling, normalising",
            partial(preprocessor.run_case_npy, read, None, properties, plans, configuration, _DATASET_JSON),
        )
        tensor = torch.from_numpy(data)
        for mirroring in (True, False):
            predictor.use_mirroring = mirroring
            name = "network, mirrored" if mirroring else "network"
            logits = timed(name, partial(_logits, predictor, tensor))
        shape = properties["shape_after_cropping_and_before_resampling"]
        by_nnunet = timed(
            "resampling back by nnU-Net",
            partial(configuration.resampling_fn_probabilities, logits, shape, [1.0] * 3, properties["spacing"]),
        )
        by_torch = timed(
            "resampling back by PyTorch", partial(resampled, logits, plans, configuration, properties, device)
        )
        labels = timed("labels", partial(predictor.label_manager.convert_logits_to_segmentation, by_torch))
        file = str(folder / "p.nii.gz")
        timed("writing", partial(io.write_seg, np.asarray(labels, np.uint8), file, properties))
    median = {name: statistics.median(times) for name, times in seconds.items()}
    for name, value in median.items():
        report(f"seconds: {name}", rounded(value))
    n_frames = data.shape[1]
    report("slices", n_frames)
    report("seconds: network without mirroring, beside the aim", aimed(median["network"], at_most=1))
    # As one number for a case: mirroring is nnU-Net's default, and so is its own resampling.
    back = median["resampling back by nnU-Net"]
    report("resampling back: nnU-Net over PyTorch", rounded(back / median["resampling back by PyTorch"]))
    report("largest difference of a probability", aimed(_difference(by_nnunet, by_torch), at_most=1e-3))
    n_passes = 2 if settings.rehearsal else 20
    report("frames/s: bare network as it is called", rounded(_bare_throughput(network.network, size, device, n_passes)))
    half = torch.float16 if device.type == "cuda" else torch.float32
    in_half: Any = network.network.to(half)
    in_half = in_half.to(memory_format=torch.channels_last)
    bare = _bare_throughput(in_half, size, device, n_passes, half)
    report("frames/s: bare network, channels-last, half precision", rounded(bare))
    report("frames/s: scan", rounded(n_frames / median["network"]))
    report("frames/s: scan over bare network", aimed(n_frames / median["network"] / bare, at_least=0.8))


def _logits(predictor: Any, image: Any) -> Any:
    return predictor.predict_sliding_window_return_logits(image).cpu()


def _difference(a: Any, b: Any) -> float:
    import torch

    p, q = (torch.softmax(torch.as_tensor(x).float(), 0) for x in (a, b))
    return float((p - q).abs().max())


def _bare_throughput(network: Any, size: int, device: Any, n: int, half: Any = None) -> float:
    """Frames per second of the 2D network alone, at its best batch size; without ``half`` under autocast."""
    import torch

    best = 0.0
    for batch in (2,) if device.type == "cpu" else (32, 64):
        stack = torch.randn(batch, CHANNELS * N_SLICES, size, size, device=device)
        if half is not None:
            stack = stack.to(dtype=half, memory_format=torch.channels_last)
        autocast = torch.autocast(device.type, enabled=half is None and device.type == "cuda")
        with torch.inference_mode(), autocast:
            for step in range(n + 3):
                if step == 3:
                    wait(device.type)
                    start = time.perf_counter()
                network(stack)
            wait(device.type)
        best = max(best, n * batch / (time.perf_counter() - start))
    return best


def audit(settings: Settings, report: Report) -> None:
    """A case as it is and magnified, with nnU-Net's resampling of probabilities and with PyTorch's.

    The network is untrained: where time goes does not depend on its weights.
    """
    import os

    import torch
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    from nnunet_lopsided.nnunet.network import Network
    from nnunet_lopsided.nnunet.raw import raw_dataset

    os.environ["nnUNet_n_proc_DA"] = "0"
    os.environ["nnUNet_compile"] = "f"
    trainer = started("nnUNetTrainerLopsided", "3d_fullres", torch.device(settings.device))
    trainer.disable_checkpointing = False
    trainer.save_checkpoint(os.path.join(trainer.output_folder, "checkpoint_final.pth"))
    model = trainer.output_folder_base
    (case,) = raw_dataset(DATASET).test_cases()
    spent: dict[str, float] = {}

    def timing(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = work(*arguments, **options)
            spent[name] = time.perf_counter() - start
            return result

        return run

    DefaultPreprocessor.run_case_npy = timing("preparing", DefaultPreprocessor.run_case_npy)
    results: dict[tuple[float, bool], NDArray[np.floating]] = {}
    totals: dict[tuple[float, bool], float] = {}
    for by_torch in (False, True):
        network = Network(model, ("0",), "checkpoint_final.pth", settings.device, torch_resampling=by_torch)
        network._logits = timing("network", network._logits)  # type: ignore[method-assign]
        scan = network.read(case.images)
        network.probabilities(scan, 1.25)  # warm-up
        for factor in (1.0, 1.5, 2.0):
            spent.clear()
            start = time.perf_counter()
            results[factor, by_torch] = network.probabilities(scan, factor)
            total = totals[factor, by_torch] = time.perf_counter() - start
            how = "PyTorch" if by_torch else "nnU-Net"
            shares = {**spent, "resampling back, softmax and the rest": total - sum(spent.values())}
            report(
                f"x{factor:g}, resampled by {how}: seconds",
                {"all": rounded(total), **{name: rounded(value) for name, value in shares.items()}},
            )
    for factor in (1.5, 2.0):
        faster = totals[factor, False] / totals[factor, True]
        report(f"x{factor:g}: a prediction by nnU-Net's resampling over PyTorch's", rounded(faster))
        difference = float(np.abs(results[factor, False] - results[factor, True]).max())
        report(f"x{factor:g}: largest difference of a probability", aimed(difference, at_most=1e-3))


PREDICTION = (
    Part(
        name="prediction",
        measures="a scan of 150 x 256 x 256 x 4 by 2.5d: network, resampling, writing",
        work=prediction,
        estimate_s=60,
        limit_s=150,
    ),
)
AUDIT = (
    Part(
        name="audit",
        measures="magnified predictions: where the time goes",
        work=audit,
        estimate_s=45,
        limit_s=120,
        needs=("data",),
    ),
)

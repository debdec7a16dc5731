"""The 2.5D network: every slice is what the 2D network says about its stack of neighbours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nnunet_lopsided.architectures import DeepLabV3For25D
from nnunet_lopsided.architectures.deeplabv3_25d import NETWORK_CLASS_NAME, centre_slice
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.trainers.foreground_prior import last_layers


def build(channels: int = 2, classes: int = 3, **options: Any) -> DeepLabV3For25D:
    torch.manual_seed(0)
    return DeepLabV3For25D(channels, classes, **{"encoder": "resnet18"} | options).eval()


@pytest.fixture(scope="module")
def network() -> DeepLabV3For25D:
    return build()


def shallow(n_slices: int) -> DeepLabV3For25D:
    """With two convolutions in the place of the 2D network: what goes in and out is what is tested."""
    network = build(n_slices=n_slices)
    inner = nn.Sequential(nn.Conv2d(2 * n_slices, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 3, 5, padding=2))
    network.network = inner
    return network


def volume(depth: int, size: tuple[int, int] = (16, 16), batch: int = 1, channels: int = 2) -> torch.Tensor:
    random = torch.Generator().manual_seed(depth)
    return torch.randn(batch, channels, depth, *size, generator=random)


def stack_around(image: torch.Tensor, z: int, n_slices: int) -> torch.Tensor:
    """Slices z - r to z + r in one row of channels, all channels of a slice side by side; zero beyond the volume."""
    rows: list[torch.Tensor] = []
    for k in range(z - n_slices // 2, z + n_slices // 2 + 1):
        inside = 0 <= k < image.shape[2]
        rows.extend(image[:, c, k] if inside else torch.zeros_like(image[:, c, 0]) for c in range(image.shape[1]))
    return torch.stack(rows, 1)


@torch.no_grad()
@pytest.mark.parametrize("n_slices", [1, 3, 5, 7])
def test_a_slice_is_predicted_from_its_neighbours(n_slices: int) -> None:
    network = shallow(n_slices)
    for depth in range(1, 10):
        image = volume(depth, batch=2)
        expected = [network.network(stack_around(image, z, n_slices)) for z in range(depth)]
        for network.slices_per_pass in (1, 3, 16):
            logits = network(image)
            assert logits.shape == (2, 3, depth, 16, 16)
            torch.testing.assert_close(logits, torch.stack(expected, 2), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("depth", [2, 7])
def test_the_same_with_deeplab(network: DeepLabV3For25D, depth: int) -> None:
    image = volume(depth)
    stacks = torch.cat([stack_around(image, z, 5) for z in range(depth)])
    expected = network.network(stacks).transpose(0, 1)[None]
    torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("n_slices", [1, 3, 5])
def test_centre_slice_only(n_slices: int) -> None:
    network = shallow(n_slices)
    for depth in range(1, 10):
        image = volume(depth)
        network.centre_slice_only = False
        whole = network(image)
        network.centre_slice_only = True
        centre = network(image)
        assert centre.shape == (1, 3, 1, 16, 16)
        torch.testing.assert_close(centre[:, :, 0], whole[:, :, (depth - 1) // 2], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(centre, centre_slice(whole), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_slice_depends_on_its_neighbours_alone(network: DeepLabV3For25D) -> None:
    image = volume(9)
    before = network(image)
    image[:, :, 8] += 1
    change = (before - network(image)).abs().amax(dim=(0, 1, 3, 4))
    assert torch.all(change[:6] < 1e-5)
    assert torch.all(change[6:] > 1e-3)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"output_stride": 16}, {"decoder": "deeplabv3plus"}])
@pytest.mark.parametrize("size", [(17, 23), (5, 32)])
def test_odd_in_plane_sizes(options: dict[str, Any], size: tuple[int, int]) -> None:
    network = build(n_slices=3, **options)
    image = volume(1, size)
    logits = network(image)
    assert logits.shape == (1, 3, 1, *size)
    stride = options.get("output_stride", 8)
    padded = nn.functional.pad(image, (0, -size[1] % stride, 0, -size[0] % stride))
    torch.testing.assert_close(logits, network(padded)[..., : size[0], : size[1]], rtol=1e-4, atol=1e-5)


def computed_slices(network: DeepLabV3For25D) -> list[int]:
    """Gets the number of stacks of every pass through the 2D network."""
    passes: list[int] = []
    network.network.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    return passes


@torch.no_grad()
@pytest.mark.parametrize("slices_per_pass", [None, 1, 4])
def test_empty_stacks_are_computed_once(slices_per_pass: int | None) -> None:
    image = torch.zeros(1, 2, 20, 16, 16)
    image[:, :, 5:8] = volume(3)
    network = shallow(5)
    expected = torch.stack([network.network(stack_around(image, z, 5)) for z in range(20)], 2)
    network.slices_per_pass = slices_per_pass
    passes = computed_slices(network)
    torch.testing.assert_close(network(image), expected, rtol=1e-5, atol=1e-5)
    assert sum(passes) == 8, "slices 3 to 9 see something; one empty stack stands for the other 13"
    passes.clear()
    network.train()(image)
    assert sum(passes) == 20, "with dropout no two are alike"


@torch.no_grad()
def test_a_slice_that_is_filled_in_one_case_only_is_computed_for_all() -> None:
    image = torch.zeros(2, 2, 6, 16, 16)
    image[1, :, 4] = 1
    network = shallow(3)
    expected = torch.stack([network.network(stack_around(image, z, 3)) for z in range(6)], 2)
    torch.testing.assert_close(network(image), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_padding_is_skipped_where_that_is_asked_for() -> None:
    image = torch.zeros(1, 2, 20, 16, 16)
    image[:, :, 5] = image[:, :, 8] = 1  # 6 and 7, between them, are slices like any other
    network = shallow(5)
    expected = network(image)
    network.skip_padding = True
    passes = computed_slices(network)
    found = network(image)
    assert sum(passes) == 5, "four slices, and one stack for all padding"
    torch.testing.assert_close(found[:, :, 5:9], expected[:, :, 5:9])
    torch.testing.assert_close(found[:, :, :5], expected[:, :, :1].expand(-1, -1, 5, -1, -1))
    torch.testing.assert_close(found[:, :, 9:], expected[:, :, :1].expand(-1, -1, 11, -1, -1))
    passes.clear()
    network(torch.zeros(1, 2, 20, 16, 16))
    assert sum(passes) == 1


@torch.no_grad()
def test_thin_padding_does_not_stand_for_empty_slices_of_the_volume() -> None:
    image = torch.zeros(1, 2, 14, 16, 16)
    image[:, :, 1:3], image[:, :, 11:13] = volume(2), volume(2)  # one slice of padding at either end sees the volume
    network = shallow(5)
    expected = network(image)
    network.skip_padding = True
    torch.testing.assert_close(network(image)[:, :, 1:13], expected[:, :, 1:13])


@pytest.mark.parametrize("encoder", ["tu-efficientnet_b0", "tu-mobilenetv3_small_100"])
def test_no_activation_is_lost_with_its_normalisation(encoder: str) -> None:
    from segmentation_models_pytorch import DeepLabV3

    def activations(network: nn.Module) -> int:
        kinds = (nn.ReLU, nn.SiLU, nn.Hardswish, nn.GELU, nn.LeakyReLU)
        return sum(isinstance(layer, kinds) for layer in network.modules())

    plain = DeepLabV3(encoder, encoder_weights=None, encoder_output_stride=16, in_channels=2, classes=2)
    ours = build(2, 2, n_slices=1, encoder=encoder, output_stride=16)
    assert activations(ours) == activations(plain) > 5
    assert not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in ours.modules())


def test_slices_per_pass_follow_the_size_of_a_slice() -> None:
    network = build()
    assert network._slices_that_fit(torch.empty(1, 4, 20, 256, 256, device="meta")) == 4  # 256 MiB / 800 bytes: 5
    assert network._slices_that_fit(torch.empty(1, 4, 20, 2048, 2048, device="meta")) == 1
    assert network._slices_that_fit(torch.empty(1, 4, 20, 8, 8, device="meta")) == 64


def test_too_many_slices_at_once_are_halved_until_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    network, image = shallow(3), volume(9)
    with torch.no_grad():
        expected = network(image)
    monkeypatch.setattr(network, "_slices_that_fit", lambda _: 8)
    passes = computed_slices(network)
    predict = network._predict

    def small_gpu(stack: torch.Tensor) -> torch.Tensor:
        if len(stack) > 2:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return predict(stack)

    monkeypatch.setattr(network, "_predict", small_gpu)
    with torch.no_grad():
        torch.testing.assert_close(network(image), expected)
    assert passes == [2, 2, 2, 2, 1], "of at most 8: 5 and 4; too many, hence 3, 2"
    network.slices_per_pass = 4  # the user's own wish
    with pytest.raises(torch.cuda.OutOfMemoryError):
        network(image)


def test_pretrained_weights_are_adapted(monkeypatch: pytest.MonkeyPatch) -> None:
    from segmentation_models_pytorch.encoders import get_encoder

    pretrained: Any = get_encoder("resnet18", in_channels=3)
    for weight in pretrained.state_dict().values():
        if weight.is_floating_point():
            weight.uniform_(0.5, 1.5)

    def stored(name: str, in_channels: int, weights: str, output_stride: int) -> Any:
        assert (name, weights) == ("resnet18", "imagenet")
        encoder = get_encoder(name, in_channels=3, output_stride=output_stride)
        encoder.load_state_dict(pretrained.state_dict())
        encoder.set_in_channels(in_channels, pretrained=True)  # what the library does after loading
        return encoder

    monkeypatch.setattr("nnunet_lopsided.architectures.deeplabv3_25d.get_encoder", stored)
    network = build(n_slices=3, encoder_weights="imagenet")
    encoder: Any = network.network.encoder
    before = encoder.conv1.weight.clone()
    network.load_pretrained_encoder()
    encoder = network.network.encoder
    assert encoder.conv1.weight.shape == before.shape == (64, 6, 7, 7)
    assert not torch.equal(encoder.conv1.weight, before)
    # Channel i gets filter i mod 3, scaled so that an image of equal channels gives what it gave.
    torch.testing.assert_close(encoder.conv1.weight.sum(1), pretrained.conv1.weight.sum(1))
    assert torch.equal(encoder.layer1[0].conv1.weight, pretrained.layer1[0].conv1.weight)
    assert torch.equal(encoder.bn1.weight, pretrained.bn1.weight), "group norm scales as batch norm did"
    assert network.encoder_weights == "imagenet"
    network.load_state_dict(network.state_dict())
    assert network.encoder_weights is None, "weights from elsewhere stay"


def test_pretrained_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(encoder_weights=None)
    network.load_pretrained_encoder()
    with pytest.raises(ValueError, match=r"encoder_weights 'nothing' of encoder resnet18: Wrong pretrained weights"):
        build(encoder_weights="nothing").load_pretrained_encoder()

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no\n connection")

    monkeypatch.setattr("nnunet_lopsided.architectures.deeplabv3_25d.get_encoder", offline)
    with pytest.raises(ValueError, match=r"not be downloaded \(OSError: no connection\); load them once"):
        build(encoder_weights="imagenet").load_pretrained_encoder()


def test_a_batch_of_one_trains() -> None:
    network = build(n_slices=3).train()
    network.centre_slice_only = True
    logits = network(volume(3))
    logits.square().mean().backward()
    missing = [name for name, weight in network.named_parameters() if weight.grad is None]
    assert missing == []
    assert not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in network.modules())


@torch.no_grad()
def test_the_prediction_of_a_case_does_not_depend_on_the_batch(network: DeepLabV3For25D) -> None:
    image = volume(1, batch=3)
    together = network(image)
    for case in range(3):
        torch.testing.assert_close(network(image[case : case + 1])[0], together[case], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_state_dict_round_trip() -> None:
    first, second = build(n_slices=3), DeepLabV3For25D(2, 3, n_slices=3, encoder="resnet18").eval()
    image = volume(3)
    assert not torch.equal(first(image), second(image))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(image), second(image))


def test_nnunet_builds_it_from_plans() -> None:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    arguments = {"n_slices": 3, "encoder": "resnet18", "decoder": "deeplabv3plus", "output_stride": 16}
    network = get_network_from_plans(NETWORK_CLASS_NAME, arguments, [], 4, 2, deep_supervision=False)
    assert isinstance(network, DeepLabV3For25D)
    assert (network.n_slices, network.output_stride) == (3, 16)
    encoder: Any = network.network.encoder
    assert encoder.conv1.in_channels == 12


def test_the_last_layer_gives_the_logits() -> None:
    (layer,) = last_layers(build(classes=3))
    assert layer.bias.shape == (3,)
    network = build(n_slices=1)
    (layer,) = last_layers(network)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([1.0, -2.0, 3.0]))
        logits = network(volume(2))
    torch.testing.assert_close(logits, torch.tensor([1.0, -2.0, 3.0]).view(1, 3, 1, 1, 1).expand_as(logits))


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 6])
def test_centre_slice_of_a_target(depth: int) -> None:
    target = torch.arange(depth).view(1, 1, depth, 1, 1).expand(2, 1, depth, 4, 4)
    middle = centre_slice(target)
    assert middle.shape == (2, 1, 1, 4, 4)
    assert torch.all(middle == (depth - 1) // 2)


def test_nnunets_own_trainers_are_refused() -> None:
    with pytest.raises(InputError, match="such as -tr nnUNetTrainer25D"):
        build(deep_supervision=True)
    with pytest.raises(InputError, match="such as -tr nnUNetTrainer25D"):
        # What nnUNetTrainerNoDeepSupervision does.
        setattr(build().decoder, "deep_supervision", False)  # noqa: B010 - the property returns nothing to set it on


def test_centre_slice_refuses_deep_supervision() -> None:
    with pytest.raises(TypeError, match="must be one tensor"):
        centre_slice([torch.zeros(1, 1, 5, 4, 4)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_slices": 4}, "n_slices must be a positive odd number, got 4"),
        ({"n_slices": 0}, "n_slices must be a positive odd number, got 0"),
        ({"n_slices": -1}, "n_slices must be a positive odd number, got -1"),
        ({"decoder": "unet"}, "decoder must be one of deeplabv3, deeplabv3plus, got 'unet'"),
        ({"output_stride": 4}, "output_stride must be 8 or 16, got 4"),
        ({"slices_per_pass": 0}, "slices_per_pass must be at least 1, got 0"),
        ({"encoder": "resnet19"}, "encoder must be .* can be dilated, got 'resnet19': it is unknown"),
        ({"encoder": "vgg11"}, "encoder must be .* can be dilated, got 'vgg11': "),
        ({"n_slices": "5"}, "n_slices must be a positive odd number, got '5'"),
        ({"n_slices": True}, "n_slices must be a positive odd number, got True"),
        ({"output_stride": 16.0}, "output_stride must be 8 or 16, got 16.0"),
        ({"decoder": ["deeplabv3"]}, "decoder must be one of deeplabv3, deeplabv3plus, got "),
        ({"encoder_weights": 1}, "encoder_weights must be a name or null, got 1"),
        (
            {"n_slice": 5},
            "unknown argument n_slice; expected n_slices, encoder, decoder, output_stride",
        ),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


@torch.no_grad()
def test_padding_in_the_plane_is_not_computed_and_looks_like_nothing() -> None:
    image = torch.zeros(2, 2, 4, 40, 36)
    image[..., 4:36, 2:34] = volume(4, (32, 32), batch=2)
    network = shallow(3)
    inner = network(image[..., 4:36, 2:34])
    empty = network(torch.zeros(2, 2, 1, 32, 32))[:, :, :1, 16:17, 16:17]
    network.padding_beyond = (32, 32)
    found = network(image)
    torch.testing.assert_close(found[..., 4:36, 2:34], inner)
    torch.testing.assert_close(found[..., :4, :], empty.expand(-1, -1, 4, 4, 36))
    torch.testing.assert_close(found[..., 34:], empty.expand(-1, -1, 4, 40, 2))
    image[0, 0, 0, 0, 0] = 1  # not padding
    network.padding_beyond = None
    whole = network(image)
    network.padding_beyond = (32, 32)
    torch.testing.assert_close(network(image), whole)


@torch.no_grad()
def test_nothing_is_compiled_again_for_another_pattern_of_empty_slices() -> None:
    graphs = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    network = shallow(3)
    network.skip_padding, network.padding_beyond, network.slices_per_pass = True, (16, 16), 2
    compiled = torch.compile(network, backend=backend)
    for first in range(6):
        image = torch.zeros(1, 2, 8, 24, 24)
        image[:, :, first : first + 3, 4:20, 4:20] = 1
        compiled(image)
    torch._dynamo.reset()
    assert len(graphs) <= 4

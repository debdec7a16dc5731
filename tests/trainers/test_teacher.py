"""The average network a bootstrap takes its targets from."""

import torch
from torch import nn

from nnunet_lopsided.trainers.teacher import EmaTeacher


def test_it_follows_slowly() -> None:
    network = nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        network.weight.fill_(1.0)
        network.get_parameter("bias").fill_(0.0)
    teacher = EmaTeacher(network, decay=0.75)
    with torch.no_grad():
        network.weight.fill_(3.0)
    expected = 1.0
    for _ in range(3):
        teacher.follow(network)
        expected = 0.75 * expected + 0.25 * 3.0
        assert teacher.network.get_parameter("weight").item() == expected
    assert network.weight.item() == 3.0
    output = teacher(torch.ones(1, 1, 1, 1))
    assert isinstance(output, torch.Tensor)
    assert output.item() == expected
    assert not output.requires_grad


def test_buffers_are_copied() -> None:
    network = nn.BatchNorm2d(2)
    teacher = EmaTeacher(network, decay=0.9)
    network(torch.randn(4, 2, 3, 3))
    teacher.follow(network)
    assert torch.equal(teacher.network.get_buffer("running_mean"), network.get_buffer("running_mean"))
    assert teacher.network.get_buffer("num_batches_tracked") == 1

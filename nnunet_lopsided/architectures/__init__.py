"""Networks that nnU-Net builds from its plans."""

from nnunet_lopsided.architectures.deeplabv3_25d import DeepLabV3For25D

__all__ = ["DeepLabV3For25D"]

"""Names of the small configurations, by themselves: ``lopsided-plan --help`` needs no more."""

# Small configuration -> the one of nnU-Net's that it is made from.
PARENTS = {f"{parent}_small": parent for parent in ("2d", "3d_fullres")}

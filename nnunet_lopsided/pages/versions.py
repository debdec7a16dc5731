"""Which libraries computed the numbers."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import nnunet_lopsided

_LIBRARIES = ("numpy", "scipy", "connected-components-3d", "SimpleITK")


def library_versions() -> dict[str, str]:
    """Version of this package, of Python and of the libraries whose arithmetic or file reading matters."""
    versions = {"nnunet-lopsided": nnunet_lopsided.__version__, "Python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed by a package manager"
    return versions

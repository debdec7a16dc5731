"""All that nnU-Net imports while it looks for a trainer: names are answered by the installed package.

nnU-Net drops this module from ``sys.modules`` after each search; the classes live in ``nnunet_lopsided.trainers`` and
are therefore the same objects every time.
"""


def __getattr__(name: str) -> object:
    # Imported here, since nnU-Net takes whatever a module holds under a name for a trainer.
    from nnunet_lopsided import trainers
    from nnunet_lopsided.errors import InputError, refuse
    from nnunet_lopsided.trainers.names import likely_meant

    try:
        if name.partition("_")[0] in trainers.base_trainers():
            return getattr(trainers, name)
        meant = None if name.startswith("__") or _others_follow() else likely_meant(name, trainers.base_trainers())
        if meant is not None:
            raise InputError(f"no trainer is called {name}. Did you mean {meant}?")
    except InputError as error:
        refuse(error)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _others_follow() -> bool:
    """Whether nnU-Net will look in other folders after this one, which may hold a trainer of that name."""
    import os

    from nnunet_lopsided.startup import PLUGIN_FOLDER, VARIABLE

    folders = [folder for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder.strip()]
    return folders[-1:] != [PLUGIN_FOLDER]

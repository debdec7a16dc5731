"""What the installed ``nnunet_lopsided.pth`` runs when Python starts: tell nnU-Net where our trainers are.

It runs in every interpreter of the environment, so it is silent, imports nothing that is not loaded already, and
does nothing when ``NNUNET_LOPSIDED_NO_HOOK`` is set.
"""

import os

VARIABLE = "nnUNet_extTrainer"
SWITCH_OFF = "NNUNET_LOPSIDED_NO_HOOK"
PLUGIN_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "trainers", "plugin")


def register() -> None:
    """Append our plugin folder to ``nnUNet_extTrainer``, once, behind whatever the user has put there."""
    if os.environ.get(SWITCH_OFF):
        return
    folders = [folder for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder]
    if PLUGIN_FOLDER not in folders:
        os.environ[VARIABLE] = os.pathsep.join([*folders, PLUGIN_FOLDER])

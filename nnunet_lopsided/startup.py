"""How nnU-Net learns where our trainers are.

``nnunet_lopsided.pth`` lies in site-packages, and Python runs its one line at every start: it appends
:data:`PLUGIN_FOLDER` to :data:`VARIABLE`, once, after whatever the user has put there. The line runs in every
interpreter of the environment, so it imports nothing, not even this package, which would cost ten times as much.
"""

import os

VARIABLE = "nnUNet_extTrainer"
SWITCH_OFF = "NNUNET_LOPSIDED_NO_HOOK"
PLUGIN_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "trainers", "plugin")

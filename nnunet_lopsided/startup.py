"""How nnU-Net learns where our trainers are.

``nnunet_lopsided.pth`` lies in site-packages, and Python runs its one line at every start: it appends
:data:`PLUGIN_FOLDER` to :data:`VARIABLE`, once, after whatever the user has put there, and waits for the import of
:data:`LOOK_UP`, nnU-Net's search for classes. Only nnU-Net 2.8 reads the variable: for 2.6 and 2.7
:mod:`nnunet_lopsided.nnunet.older_versions` makes that search read it. The line runs in every interpreter of the
environment, so it imports nothing, not even this package, which would cost ten times as much.
"""

import os

VARIABLE = "nnUNet_extTrainer"
SWITCH_OFF = "NNUNET_LOPSIDED_NO_HOOK"
PLUGIN_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "trainers", "plugin")
LOOK_UP = "nnunetv2.utilities.find_class_by_name"

#!/usr/bin/env bash
# lopsided-audit on real images: nuclei of which half were deleted from the training labels, at random or the smallest;
# a two-fold cross-validation with the lopsided and with nnU-Net's own loss, on a CPU; the audit of each against the truth.
#   benchmarks/audit.sh NUCLEI WORK [MODE...]
# NUCLEI is a 2D dataset in nnU-Net's raw layout, WORK gets everything, a MODE is stochastic or size (default: both).
# An interrupted run can be repeated: what is finished is skipped.
set -euo pipefail
nuclei=$(realpath "$1"); mkdir -p "$2"/{raw,preprocessed,results,report}; work=$(realpath "$2"); shift 2
modes=("${@:-stochastic}"); [ $# -gt 0 ] || modes=(stochastic size)
budget=12epochs_25iters
export nnUNet_raw=$work/raw nnUNet_preprocessed=$work/preprocessed nnUNet_results=$work/results
export nnUNet_n_proc_DA=1 nnUNet_def_n_proc=1 OMP_NUM_THREADS=1

source=$nnUNet_raw/Dataset701_Nuclei
[ -d "$source" ] || { mkdir "$source"; cp -r "$nuclei"/{imagesTr,labelsTr,imagesTs,labelsTs,dataset.json} "$source"; }
[ -f "$work/report/preprocessed" ] || {
  nnUNetv2_plan_and_preprocess -d 701 -c 2d -np 1
  # A network that a CPU trains in minutes, and two folds.
  python - "$nnUNet_preprocessed/Dataset701_Nuclei" <<'PYTHON'
import json, random, sys
from pathlib import Path
folder = Path(sys.argv[1])
plans = json.loads((folder / "nnUNetPlans.json").read_text())
configuration = plans["configurations"]["2d"]
configuration |= {"patch_size": [128, 128], "batch_size": 2}
network = configuration["architecture"]["arch_kwargs"]
network |= {"n_stages": 5, "features_per_stage": [8, 16, 32, 64, 64]}
for name, n in (("kernel_sizes", 5), ("strides", 5), ("n_conv_per_stage", 5), ("n_conv_per_stage_decoder", 4)):
    network[name] = network[name][:n]
(folder / "nnUNetPlans.json").write_text(json.dumps(plans, indent=2))
cases = sorted(path.name.removesuffix(".png") for path in (folder / "gt_segmentations").glob("*.png"))
random.Random(0).shuffle(cases)
one, other = sorted(cases[: len(cases) // 2]), sorted(cases[len(cases) // 2 :])
splits = [{"train": one, "val": other}, {"train": other, "val": one}]
(folder / "splits_final.json").write_text(json.dumps(splits, indent=2))
PYTHON
  touch "$work/report/preprocessed"
}
for mode in "${modes[@]}"; do
  id=711; [ "$mode" = stochastic ] || id=712
  compgen -G "$nnUNet_raw/Dataset${id}_*" >/dev/null ||
    lopsided-censor -d 701 -o $id --mode "$mode" --rate 0.5 --seed 0 --name "Nuclei-$mode"
  compgen -G "$nnUNet_preprocessed/Dataset${id}_*" >/dev/null || lopsided-share -d 701 -o $id
  for trainer in nnUNetTrainerLopsidedDice_dicenone_$budget nnUNetTrainer25D_$budget; do
    for fold in 0 1; do
      compgen -G "$nnUNet_results/Dataset${id}_*/${trainer}__*/fold_$fold/checkpoint_final.pth" >/dev/null ||
        nnUNetv2_train $id 2d $fold -tr "$trainer" -device cpu --npz --c
    done
    lopsided-audit -d $id -tr "$trainer" -c 2d -device cpu -o "$work/report/audit-$id-$trainer" --overwrite
  done
  lopsided-audit score "$work/report/audit-$id-nnUNetTrainerLopsidedDice_dicenone_$budget" --truth 701 -o "$work/report/score-$id" \
    --against "$work/report/audit-$id-nnUNetTrainer25D_$budget" --overwrite | tee "$work/report/score-$id.txt"
done

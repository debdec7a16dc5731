#!/usr/bin/env bash
# Which Dice term nnUNetTrainerLopsidedDice should have: none, full or masked, on procedural brains with half of the
# training lesions deleted, at random or the smallest; another phantom and another censoring for every seed.
#   benchmarks/dice_term.sh WORK [SEEDS]
# WORK/table.tsv gets a row per run as it ends. An interrupted run can be repeated: what is finished is skipped.
set -euo pipefail
mkdir -p "$1"/{raw,preprocessed,results,predictions,report,logs}; work=$(realpath "$1"); seeds=${2:-0 1 2}
export nnUNet_raw=$work/raw nnUNet_preprocessed=$work/preprocessed nnUNet_results=$work/results
export nnUNet_n_proc_DA=1 nnUNet_def_n_proc=1
budget=8epochs_50iters

plan() { # ID: preprocess and plan with a small network
  nnUNetv2_plan_and_preprocess -d "$1" -c 3d_fullres -np 1 -npfp 1
  lopsided-plan -d "$1" --encoder resnet18 --decoder deeplabv3plus --output-stride 16 --batch-size 12 --overwrite
}
for seed in $seeds; do
  full=$((700 + 10 * seed))
  [ -d "$(echo "$nnUNet_raw"/Dataset${full}_*)" ] ||
    python -m nnunet_lopsided.commands.phantom -d $full --train 16 --test 12 --seed "$seed" --shape 32 80 80 \
      --spacing 2 1.6 1.6
  for mode in stochastic size; do
    id=$((full + 1)); [ $mode = size ] && id=$((full + 2))
    [ -d "$(echo "$nnUNet_raw"/Dataset${id}_*)" ] ||
      lopsided-censor -d $full -o $id --mode $mode --rate 0.5 --seed "$seed"
    [ -f "$work/logs/planned-$id" ] || { plan $id >"$work/logs/plan-$id.log" 2>&1; touch "$work/logs/planned-$id"; }
    for term in none full masked; do
      trainer=nnUNetTrainerLopsidedDice_dice${term}_$budget run=${id}_$term
      [ -f "$work/report/$run/summary.json" ] && continue
      nnUNetv2_train $id 2.5d all -tr $trainer -device cpu --c >"$work/logs/train-$run.log" 2>&1
      rm -rf "$work/predictions/$run"
      nnUNetv2_predict -i "$nnUNet_raw"/Dataset${full}_*/imagesTs -o "$work/predictions/$run" -d $id -c 2.5d -f all \
        -tr $trainer -device cpu --save_probabilities --disable_tta -npp 1 -nps 1 >"$work/logs/predict-$run.log" 2>&1
      lopsided-eval -g "$nnUNet_raw"/Dataset${full}_*/labelsTs -p "$work/predictions/$run" -o "$work/report/$run"
      python - "$work/report/$run/summary.json" "$seed" $mode $term >>"$work/table.tsv" <<'PYTHON'
import json, sys
metrics = json.load(open(sys.argv[1]))["metrics"]
names = "map", "max_sensitivity", "precision_at_max_sensitivity", "false_positives_per_case", "tp_dice", "lesion_entropy_bits"
print(*sys.argv[2:], *("null" if metrics[n] is None else f"{metrics[n]:.3f}" for n in names), sep="\t")
PYTHON
    done
  done
done
cat "$work/table.tsv"

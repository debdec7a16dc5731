#!/usr/bin/env bash
# The main job on real MRI: two patients of the Ljubljana MS database, one to train and one to test, both ways round;
# all lesions and the 50% largest; nnU-Net's own loss and the lopsided loss.
#   benchmarks/open_ms.sh BLOCKS WORK
# BLOCKS holds imagesTr and labelsTr with patient07_bNN and patient26_bNN. WORK gets everything, the report in
# WORK/report. An interrupted run can be repeated: what is finished is skipped.
set -euo pipefail
blocks=$(realpath "$1"); mkdir -p "$2"/{raw,preprocessed,results,predictions,report}; work=$(realpath "$2")
configuration=2d budget=20epochs_25iters
export nnUNet_raw=$work/raw nnUNet_preprocessed=$work/preprocessed nnUNet_results=$work/results
export nnUNet_n_proc_DA=1 nnUNet_def_n_proc=2

split() { # ID TRAIN TEST: every block of one patient to train, every block of the other to test
  local d=$nnUNet_raw/Dataset$1_OpenMS$2to$3
  [ -f "$d/dataset.json" ] && return
  mkdir -p "$d"/{imagesTr,labelsTr,imagesTs,labelsTs}
  ln -sf "$blocks"/imagesTr/patient$2_* "$d/imagesTr/"; ln -sf "$blocks"/labelsTr/patient$2_* "$d/labelsTr/"
  ln -sf "$blocks"/imagesTr/patient$3_* "$d/imagesTs/"; ln -sf "$blocks"/labelsTr/patient$3_* "$d/labelsTs/"
  sed 's/"numTraining": 24/"numTraining": 12/' "$blocks/dataset.json" >"$d/dataset.json"
}
timed() { # LABEL COMMAND...: run it and add its wall time to the report
  local start=$SECONDS; "${@:2}"; printf '%s\t%s\n' "$1" $((SECONDS - start)) >>"$work/report/seconds.tsv"
}

split 601 07 26; split 602 26 07
for pair in "601 611" "602 612"; do
  read -r full censored <<<"$pair"
  compgen -G "$nnUNet_raw/Dataset${censored}_*" >/dev/null ||
    timed "censor $censored" lopsided-censor -d "$full" -o "$censored" --mode size --rate 0.5 --seed 0
  for id in $full $censored; do
    [ -f "$work/report/preprocessed-$id" ] || {
      timed "preprocess $id" nnUNetv2_plan_and_preprocess -d "$id" -c $configuration -np 2
      touch "$work/report/preprocessed-$id"
    }
    for trainer in nnUNetTrainer25D_$budget nnUNetTrainerLopsidedDice_dicenone_$budget; do
      run=${id}_$trainer
      compgen -G "$nnUNet_results/Dataset${id}_*/${trainer}__*/fold_all/checkpoint_final.pth" >/dev/null ||
        timed "train $run" nnUNetv2_train "$id" $configuration all -tr "$trainer" -device cpu --c
      # The test images are the same for the variant, whose own imagesTs points at them.
      [ -d "$work/predictions/$run" ] || {
        rm -rf "$work/unfinished"
        timed "predict $run" nnUNetv2_predict -i "$nnUNet_raw"/Dataset"${id}"_*/imagesTs -o "$work/unfinished" \
          -d "$id" -c $configuration -f all -tr "$trainer" -device cpu --save_probabilities -npp 1 -nps 1
        mv "$work/unfinished" "$work/predictions/$run"
      }
    done
  done
done
for run in "$work"/predictions/*; do
  run=$(basename "$run")
  timed "evaluate $run" lopsided-eval -g "$nnUNet_raw"/Dataset"${run%%_*}"_*/labelsTs -p "$work/predictions/$run" \
    -o "$work/report/$run" --overwrite
done
python - "$work/report" <<'PYTHON' | tee "$work/report/table.md"
"""Every number of every run, as a Markdown table."""
import json, sys
from pathlib import Path

def cell(value, ends=None):
    text = "null" if value is None else f"{value:.3f}"
    return text if ends is None else f"{text} ({ends[0]:.2f} to {ends[1]:.2f})"

print("| train, labels, trainer | mAP | max sensitivity | precision | FP per case | Dice of TP | entropy | TP / lesions | FP | duplicates |")
print("|---|---|---|---|---|---|---|---|---|---|")
patients = {"601": "07 to 26, all", "611": "07 to 26, censored", "602": "26 to 07, all", "612": "26 to 07, censored"}
for folder in sorted(p for p in Path(sys.argv[1]).iterdir() if p.is_dir()):
    s = json.loads((folder / "summary.json").read_text())
    m, c, i = s["metrics"], s["counts"], s["intervals"]
    dataset, trainer = folder.name.split("_")[:2]
    print(f"| {patients[dataset]}, {'lopsided' if 'Lopsided' in trainer else 'stock'} | {cell(m['map'], m['map_ci95_bootstrap'])} | "
          f"{cell(m['max_sensitivity'], i.get('max_sensitivity_bootstrap_ci95'))} | {cell(m['precision_at_max_sensitivity'])} | "
          f"{cell(m['false_positives_per_case'])} | {cell(m['tp_dice'])} | {cell(m['lesion_entropy_bits'])} | "
          f"{c['true_positives']} / {c['reference_lesions']} | {c['false_positives']} | {c['duplicates']} |")
PYTHON

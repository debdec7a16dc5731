"""Examples at the end of every ``--help``; a test parses each of them with the command's own parser."""

from __future__ import annotations

from collections.abc import Mapping

_RELEASE = ("{} /data/release -d 501", "{} /data/release -d 501 --test-fraction 0.2 --dry-run")
_RELEASES = ("brainmetshare", "brats-mets", "yale-pretreat", "ucsf-bmsr", "nyumets", "ljubljana-ms", "lits")

# By the name that the command's help begins with.
EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "lopsided-convert": (
        "lopsided-convert brats-mets /data/BraTS2025-METS -d 501 --test-fraction 0.2",
        "lopsided-convert folder /data/clinic -d 502 --channels t1c='*_t1c.nii.gz' --labels '*_seg.nii.gz' --dry-run",
        "lopsided-convert merge 501 503 -d 530 --same t1c=T1WKS",
    ),
    **{
        f"lopsided-convert {name}": tuple(line.format(f"lopsided-convert {name}") for line in _RELEASE)
        for name in _RELEASES
    },
    "lopsided-convert luna16": ("lopsided-convert luna16 /data/LUNA16 -d 520 --consensus 2 --reader-variants",),
    "lopsided-convert folder": (
        "lopsided-convert folder /data/clinic -d 502 --channels t1c='*_t1c.nii.gz' t2='*_t2.nii.gz' "
        "--labels '*_seg.nii.gz' --patients-regex '(.+?)(?:_(ses-[0-9]+))?$' --ignore derivatives",
        "lopsided-convert folder /data/clinic -d 502 --channels t1c=t1c.nii.gz --labels seg.nii.gz --reorient "
        "--resample-channels",
        "lopsided-convert folder /data/study -d 503 --bids --channels T1w t1c=ce-gd_T1w --labels label-lesion_mask",
    ),
    "lopsided-convert dicom": (
        "lopsided-convert dicom /data/pacs -d 504 --channels t1c='*t1*post*' flair='*flair*' --resample-channels",
        "lopsided-convert dicom /data/pacs -d 504 --channels t1c=7 --labels '*contours*' --segments 'met*' --dry-run",
    ),
    "lopsided-convert merge": ("lopsided-convert merge 501 503 -d 530 --name MetsAndMS --same t1c=T1WKS",),
    "lopsided-censor": (
        "lopsided-censor -d 501 -o 511 --mode stochastic --rate 0.5 --seed 1",
        "lopsided-censor -d 501 --mode size --rate 0.3 --dry-run",
    ),
    "lopsided-share": ("lopsided-share -d 501 -o 511",),
    "lopsided-soften": ("lopsided-soften -d 511 -c 3d_fullres -i /data/soft_targets",),
    "lopsided-complete": (
        "lopsided-complete -d 511 -c 3d_fullres -o 531 --train",
        "lopsided-complete -d 511 -c 3d_fullres -o 532 --sample 60",
    ),
    "lopsided-predict": (
        "lopsided-predict -i /data/imagesTs -o /data/predicted -d 501 -tr nnUNetTrainerLopsided -c 3d_fullres "
        "--magnify 1.5 2 --save_probabilities",
    ),
    "lopsided-plan": ("lopsided-plan -d 501", "lopsided-plan -d 501 -c 2d_small"),
    "lopsided-eval": (
        "lopsided-eval -p /data/predicted -g /data/nnUNet_raw/Dataset501_Mets/labelsTs -o evaluated",
        "lopsided-eval --cv /data/nnUNet_results/Dataset501_Mets/nnUNetTrainerLopsided__nnUNetPlans__3d_fullres -o cv",
        "lopsided-eval compare evaluated-a evaluated-b -o compared",
    ),
    "lopsided-eval compare": ("lopsided-eval compare evaluated-a evaluated-b -o compared --names nnU-Net lopsided",),
    "lopsided-confidence": ("lopsided-confidence -d 501 -tr nnUNetTrainerLopsided -c 3d_fullres",),
    "lopsided-audit": (
        "lopsided-audit -d 501 -c 3d_fullres -o audit",
        "lopsided-audit apply decisions.csv -o 540",
        "lopsided-audit score audit --truth 500",
    ),
    "lopsided-audit apply": (
        "lopsided-audit apply decisions.csv -o 540",
        "lopsided-audit apply --accept-above 0.9 --audit audit -o 541",
    ),
    "lopsided-audit sample": ("lopsided-audit sample audit --n 60 --seed 1",),
    "lopsided-audit estimate": (
        "lopsided-audit estimate decisions.csv",
        "lopsided-audit estimate decisions.csv --sample audit/sample --precision 0.9 -o estimate",
    ),
    "lopsided-audit score": ("lopsided-audit score audit --truth 500",),
    "lopsided-dicom": (
        "lopsided-dicom -i /data/predicted --series /data/pacs -o /data/segmentations --report",
        "lopsided-dicom -i /data/nnUNet_raw/Dataset540_Repaired/labelsTr --series /data/pacs -o segmentations --one",
    ),
    "lopsided-study": ("lopsided-study plan quick", "lopsided-study run quick -o study-quick --cores 4"),
    "lopsided-study plan": ("lopsided-study plan study.yaml",),
    "lopsided-study run": (
        "lopsided-study run study.yaml --gpus 2",
        "lopsided-study run study.yaml --profile slurm -- --retries 1",
    ),
    "lopsided-study status": ("lopsided-study status study-quick",),
    "lopsided-study report": ("lopsided-study report study-quick",),
    "lopsided-study schema": ("lopsided-study schema > study.schema.json",),
    "lopsided-study presets": ("lopsided-study presets quick > study.yaml",),
    "lopsided-demo": ("lopsided-demo -o demo", "lopsided-demo -o demo --mode size --rate 0.3"),
    "lopsided-env": ('eval "$(lopsided-env)"', "lopsided-env --completion bash > ~/.lopsided-completion.bash"),
    "lopsided-doctor": ("lopsided-doctor",),
    "python -m nnunet_lopsided.commands.phantom": ("python -m nnunet_lopsided.commands.phantom -d 900 --train 8",),
}

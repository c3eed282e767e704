#!/usr/bin/env bash
# The whole road on a LeRobotDataset of a real robot, at laptop size.
#
#   bash examples/real_robot.sh DATASET_FOLDER OUTPUT_FOLDER
#
# STEPS sets the length of every training (default 300); OFFSET_S the seconds between the frames of a clip.
set -euo pipefail
dataset=$1 out=$2 steps=${STEPS:-300} offset=${OFFSET_S:-0.25}
mkdir -p "$out"

hlrp-train-laq --dataset_root="$dataset" --output_dir="$out/laq" --frame_offset_s="$offset" --steps="$steps"
hlrp-precompute-latent-codes --laq_path="$out/laq" --dataset_root="$dataset" --output_dir="$out/labels"
hlrp-train-foundation --dataset_root="$dataset" --labels_path="$out/labels" --output_dir="$out/foundation" --steps="$steps"
lerobot-train --policy.type=hlrp_vla_direct --policy.push_to_hub=false \
    --policy.vla_checkpoint_path="$out/foundation" --policy.latent_labels_path="$out/labels" \
    --policy.chunk_size=7 --policy.n_action_steps=7 \
    --dataset.repo_id=local/real_robot --dataset.root="$dataset" \
    --batch_size=32 --steps="$steps" --log_freq=20 --num_workers=0 --output_dir="$out/policy"
echo "policy: $out/policy/checkpoints/last/pretrained_model"

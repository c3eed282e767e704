#!/usr/bin/env bash
# Run the whole pipeline on a LeRobotDataset of a real robot, with small models that train on a laptop.
#
#   bash examples/real_robot.sh DATASET_FOLDER OUTPUT_FOLDER
#
# The environment variable STEPS sets the optimizer steps of every stage (default 300), OFFSET_S the time between the two
# frames of a clip in seconds (default 0.25).
set -euo pipefail
dataset=$1 out=$2 steps=${STEPS:-300} offset=${OFFSET_S:-0.25}

# The policy predicts one action for each frame of the time span that a code describes. So its chunk size is the offset in
# frames of this dataset: 8 for 0.25 s at 30 fps.
chunk=$(python - "$dataset/meta/info.json" "$offset" <<'PYTHON'
import json, sys
from hlrp.latents import LatentSpec
with open(sys.argv[1]) as info:
    print(LatentSpec(frame_offset_s=float(sys.argv[2])).offset_frames(json.load(info)["fps"]))
PYTHON
)
mkdir -p "$out"

hlrp-train-laq --dataset_root="$dataset" --output_dir="$out/laq" --frame_offset_s="$offset" --steps="$steps"
hlrp-precompute-latent-codes --laq_path="$out/laq" --dataset_root="$dataset" --output_dir="$out/labels"
hlrp-train-foundation --dataset_root="$dataset" --labels_path="$out/labels" --output_dir="$out/foundation" --steps="$steps"
lerobot-train --policy.type=hlrp_vla_direct --policy.push_to_hub=false \
    --policy.vla_checkpoint_path="$out/foundation" --policy.latent_labels_path="$out/labels" \
    --policy.chunk_size="$chunk" --policy.n_action_steps="$chunk" \
    --dataset.repo_id=local/real_robot --dataset.root="$dataset" \
    --batch_size=32 --steps="$steps" --log_freq=20 --num_workers=0 --output_dir="$out/policy"
echo "policy: $out/policy/checkpoints/last/pretrained_model"

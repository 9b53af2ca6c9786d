#!/bin/sh
# LeRobot's own commands from data to videos, in a few minutes without a GPU: collects five
# episodes, trains a small ACT for 20 steps with lerobot-train, which evaluates it in the
# environment on the way, and evaluates the checkpoint with lerobot-eval. 20 steps teach it nothing.
#
#   make train-lerobot                                 in an environment of its own
#   sh examples/train_lerobot.sh outputs/lerobot       where docs/training.md's packages are installed
set -eu
output=${1:-outputs/lerobot}
scene="--env.type=frankapickplace --env.resolution=96 --env.preset=fast"

pp-collect --num-episodes 5 --resolution 96 --preset fast --output "$output/dataset"

# shellcheck disable=SC2086  # $scene is several words
lerobot-train --config_path=examples/act.json --dataset.root="$output/dataset" \
    --output_dir="$output/train" --steps=20 --batch_size=4 --num_workers=0 --log_freq=5 \
    --policy.device=cpu --policy.chunk_size=30 --policy.n_action_steps=30 \
    --policy.dim_model=64 --policy.dim_feedforward=128 --policy.n_heads=2 \
    $scene --env_eval_freq=10 --eval.n_episodes=2 --eval.batch_size=2

# shellcheck disable=SC2086
lerobot-eval --policy.path="$output/train/checkpoints/last/pretrained_model" --policy.device=cpu \
    --output_dir="$output/eval" $scene --eval.n_episodes=2

ls "$output"/train/eval/*/*/*.mp4 "$output"/eval/videos/*/*.mp4

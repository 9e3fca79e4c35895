# Run 300M-20tpp for torchtitan's own command, which takes overrides at its end:
#
#   cd FOLDER && torchrun --nproc-per-node=N -m torchtitan.train --module config_registry \
#     --config seed0 --dump_folder DIR
#
# Rendered by collapse-planner VERSION for torchtitan+local from plan PLAN-DIGEST.
"""torchtitan's configurations of a run, one for each seed: FOLDER is this file's."""

from pathlib import Path

from train import read_config, trainer_config

HERE = Path(__file__).parent


def seed0():
    """Return the Trainer.Config of seed 0."""
    return trainer_config(read_config(HERE / "config-seed0.yaml"))

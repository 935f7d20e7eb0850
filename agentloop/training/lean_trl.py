"""TRL's policy trainer without vLLM: where that is installed TRL imports all of it, half a minute, to generate in ways not used here.

While TRL's module is imported it is told that there is no vLLM. What TRL imported before keeps what it found.
"""

from __future__ import annotations

from unittest.mock import patch

with patch("trl.import_utils.is_vllm_available", lambda min_version=None: False):
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

__all__ = ["GRPOConfig", "GRPOTrainer"]

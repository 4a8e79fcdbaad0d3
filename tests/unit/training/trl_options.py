"""What the tests that hold our trainers against TRL's own ask of both."""

from typing import Any

OPTIONS: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "report_to": [],
    "remove_unused_columns": False,
    "gradient_checkpointing": False,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "save_strategy": "no",
    "logging_steps": 1,
    "disable_tqdm": True,
}

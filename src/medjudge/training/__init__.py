"""SFT, GRPO and all-action trainers: the only home of TRL."""

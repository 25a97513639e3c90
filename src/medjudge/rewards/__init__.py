"""Rewards: one number per rollout."""

"""Tuning: rollout, reward, feedback, advantage, objective, update."""

"""Workflows: functions that wire the layers below into whole jobs."""

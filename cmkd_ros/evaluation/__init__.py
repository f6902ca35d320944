"""Metrics of detections as pure functions on arrays, and their reports."""

"""Measurements of how this machine trains: precision and speed."""

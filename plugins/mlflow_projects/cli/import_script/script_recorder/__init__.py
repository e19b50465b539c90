"""Runs a driver script with MLflow's calls recorded instead of executed; see ``server.py``.

It runs in a process of its own, in whatever Python has the script's packages, so it imports nothing of the library.
"""

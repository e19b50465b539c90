"""What every tracking client must do, as cases for pytest: a module imports them and has a fixture ``store``.

tests/unit runs them on the client in memory, tests/integration on the REST client and on MLflow's own.
"""

"""The buttons from an Airflow task to its job outside, as the job's backend names them."""

from __future__ import annotations

from mlflow_projects.links.pushed import PushedLink


class JobLink(PushedLink):
    """Leads to a page of a job outside.

    :param name: on the button
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    @property
    def name(self) -> str:
        """The words on the button."""
        return self._name

    @property
    def xcom_key(self) -> str:
        """Where the address is kept, for each button its own."""
        return f"_link_{'_'.join(self._name.split())}"

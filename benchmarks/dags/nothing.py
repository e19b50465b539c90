"""A task that does nothing, in a file that loads nothing for it."""

from airflow.sdk import DAG, task

from benchmarks.memory import note_peak

with DAG("nothing", schedule=None) as nothing:

    @task(post_execute=note_peak)
    def do_nothing() -> None:
        """Return; an EmptyOperator would not do, because no process ever runs it."""

    do_nothing()

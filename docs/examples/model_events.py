"""Score with the new champion, whoever moved the alias."""

from airflow.sdk import DAG, Asset, AssetWatcher, task

from mlflow_projects import MLflowModelTrigger

moved = MLflowModelTrigger("Wine", alias="champion", poll_interval=60)
champion = Asset("wine_champion_moved", watchers=[AssetWatcher(name="mlflow", trigger=moved)])

with DAG("score_with_champion", schedule=[champion], catchup=False):

    @task
    def score(triggering_asset_events):
        change = triggering_asset_events[champion][-1].extra["payload"]
        return f"{change['uri']} of run {change['run_id']}"

    score()

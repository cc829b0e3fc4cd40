import episode_samples
import pytest

from envs import registry


@pytest.fixture
def count_up(monkeypatch):
    """The tiny task, registered for the length of one test."""
    monkeypatch.setitem(registry._TASKS, episode_samples.TASK, episode_samples.SPEC)
    return episode_samples.TASK

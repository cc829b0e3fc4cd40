"""Plugin files: found, imported once, and known to whoever plays or trains."""

import sys
from pathlib import Path

import pytest

from algos import bc
from algos.base import get_algorithm
from envs.registry import get_task
from lmrl_ray.cli import evaluation
from lmrl_ray.cli.evaluation import EvaluationRequest
from lmrl_ray.config import ConfigError
from lmrl_ray.plugins import load_plugins
from lmrl_ray.resolve import resolve_config


def test_a_plugin_file_brings_its_task_and_its_algorithm(toy):
    env = get_task("toy").make()
    assert env.reset(seed=0, options={"task_id": 2})[0] == "Animal 2?\n"
    assert env.step("cat\n")[1:4] == (0.0, True, False)
    assert get_algorithm("toy-bc").title == "Toy behaviour cloning"


def test_a_plugin_is_imported_once(tmp_path):
    log = tmp_path / "log"
    path = tmp_path / "counted_plugin.py"
    path.write_text(f"with open({str(log)!r}, 'a') as file:\n    file.write('x')\n")
    load_plugins([str(path)])
    load_plugins([str(path), str(path)])
    assert log.read_text() == "x"


def test_a_copy_of_an_algorithm_under_its_own_id_is_refused_where_it_says_so(tmp_path):
    path = tmp_path / "copied_plugin.py"
    path.write_text((Path(bc.__file__)).read_text())
    with pytest.raises(ConfigError, match=r"copied_plugin\.py.*line \d+.*'bc' is taken by algos\.bc\.BC"):
        load_plugins([str(path)])
    assert get_algorithm("bc") is bc.BC


@pytest.mark.parametrize(
    ("base", "body", "said"),
    [
        ("Algorithm", "id = 'lacking'", r"line 4: TypeError: Own has no title, source, forward, policy"),
        ("BC", "id, Config = 'odd', dict", r"line 4: TypeError: Own\.Config should be a subclass of"),
    ],
)
def test_an_algorithm_that_is_not_complete_is_refused_where_it_is_defined(tmp_path, base, body, said):
    path = tmp_path / f"incomplete_{base.lower()}.py"
    path.write_text(
        "from algos.base import Algorithm, register_algorithm\nfrom algos.bc import BC\n\n"
        f"@register_algorithm\nclass Own({base}):\n    {body}\n"
    )
    with pytest.raises(ConfigError, match=said):
        load_plugins([str(path)])


def test_a_plugin_may_import_another_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "first_plugin.py").write_text(
        "from algos.base import register_algorithm\nfrom algos.bc import BC\n\n"
        "@register_algorithm\nclass First(BC):\n    id = 'first-of-two'\n"
    )
    (tmp_path / "second_plugin.py").write_text("from first_plugin import First\n")
    load_plugins([str(tmp_path / "first_plugin.py"), str(tmp_path / "second_plugin.py")])
    assert get_algorithm("first-of-two").__name__ == "First"


def test_a_plugin_can_be_an_installed_module():
    load_plugins(["json"])


def test_a_plugin_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"plugins: no/such\.py: there is no such file"):
        load_plugins(["no/such.py"])
    with pytest.raises(ConfigError, match="plugins: no_such_module: cannot be imported"):
        load_plugins(["no_such_module"])


def test_actors_that_play_a_bare_model_are_told_of_its_tasks_plugin(toy, toy_policy):
    request = EvaluationRequest(str(toy_policy), "toy", 1, "quick", None, 1, [], [str(toy)])
    assert evaluation._config(request, toy_policy, 0).plugins == (str(toy),)


def test_two_plugin_files_of_one_name_are_an_error_not_a_silent_choice(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same_name_plugin.py").write_text("")
    load_plugins([str(tmp_path / "a" / "same_name_plugin.py")])
    with pytest.raises(ConfigError, match="another plugin file has the same name"):
        load_plugins([str(tmp_path / "b" / "same_name_plugin.py")])


def test_a_plugin_that_breaks_is_not_taken_for_loaded(tmp_path):
    path = tmp_path / "breaking_plugin.py"
    path.write_text("1 / 0\n")
    for _ in range(2):
        with pytest.raises(ConfigError):
            load_plugins([str(path)])
    assert "lmrl_plugin_breaking_plugin" not in sys.modules


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x = 1\n\n1 / 0\n", r"odd_plugin\.py, line 3: ZeroDivisionError: division by zero$"),
        ("def f():\n    1 / 0\n\nf()\n", r"odd_plugin\.py, line 2: ZeroDivisionError"),
        ("x = 1\ny = (\n", r"odd_plugin\.py, line 2: SyntaxError: '\(' was never closed$"),
        (
            "\nimport no_such_thing\n",
            r"odd_plugin\.py, line 2: ModuleNotFoundError: No module named 'no_such",
        ),
        ("import json\njson.loads('{')\n", r"odd_plugin\.py, line 2: JSONDecodeError: Expecting"),
        ("raise ValueError('one\\ntwo')\n", r"odd_plugin\.py, line 1: ValueError: one two$"),
    ],
)
@pytest.mark.parametrize("as_module", [False, True])
def test_the_line_of_a_plugin_that_breaks_is_named(tmp_path, monkeypatch, code, said, as_module):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "odd_plugin.py").write_text(code)
    plugin = "odd_plugin" if as_module else str(tmp_path / "odd_plugin.py")
    with pytest.raises(ConfigError, match=f"^plugins: {plugin}: {said}"):
        load_plugins([plugin])


def test_one_plugin_need_not_stand_in_a_list(tmp_path):
    (tmp_path / "single_plugin.py").write_text("")
    (tmp_path / "run.yaml").write_text(f"plugins: {tmp_path / 'single_plugin.py'}\n")
    for given in (
        {"file": tmp_path / "run.yaml"},
        {"settings": [f"plugins={tmp_path / 'single_plugin.py'}"]},
    ):
        config = resolve_config("bc", "maze-fo", **given)
        assert config.plugins == (str(tmp_path / "single_plugin.py"),)
    assert "lmrl_plugin_single_plugin" in sys.modules


@pytest.mark.parametrize("given", ["5", "[1]", "{a: b}"])
def test_plugins_that_are_no_paths_are_refused(given):
    with pytest.raises(ConfigError, match=r"plugins: found .*, but it should be a list of paths"):
        resolve_config("bc", "maze-fo", settings=[f"plugins={given}"])

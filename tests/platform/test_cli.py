"""The command line, as a person and a script meet it."""

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from algos import base
from lmrl_ray import checkpoint
from lmrl_ray.data import EpisodeDataset, EpisodeWriter, own_path

PUBLISHED = Path(__file__).parents[1] / "fixtures" / "wordle" / "train_data.jsonl"

HEAVY = ("torch", "ray", "transformers", "deepspeed", "mlflow", "pyarrow", "numpy")
STATS = {"episodes", "mean_length", "std_length", "success_rate", "mean_return", "std_return"}
SCORE = {"policy", "raw_return", "normalized_score", "ci95", "success_rate"}
QUICK = ("--set", "optimizer.engine=torch", "--set", "training.batch_episodes=4")


def refused(answer, *parts):
    """The command failed with one clear line and nothing else."""
    assert answer.code == 1
    assert answer.stdout == ""
    (line,) = answer.stderr.splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line
    return True


def refused_by_the_parser(answer, part):
    assert answer.code == 2
    assert part in answer.stderr
    assert "Traceback" not in answer.stderr
    return True


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def quick(toy, toy_policy, toy_data):
    """The options of a training run of a second."""

    def options(*more, steps=3):
        sources = ("--plugin", toy, "--init", toy_policy, "--data", toy_data)
        return (*sources, *QUICK, "--set", f"training.steps={steps}", *more)

    return options


@pytest.fixture
def run(lmrl, quick, out):
    assert lmrl("train", "bc", "toy", *quick("--out", out, "--name", "run", "--json")).code == 0
    return out / "run"


def test_help_takes_less_than_a_second_and_imports_nothing_heavy():
    code = f"""
import sys
from lmrl_ray.cli import main
sys.argv = ["lmrl", "--help"]
try:
    main()
except SystemExit as stopped:
    assert not stopped.code
loaded = sorted(set({HEAVY!r}) & set(sys.modules))
assert not loaded, loaded
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    for command in ("tasks", "data", "train", "eval", "play", "sweep", "demo"):
        assert command in done.stdout
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < 1.0


@pytest.mark.parametrize(
    "command",
    [
        "tasks",
        "algorithms",
        "data build",
        "data stats",
        "data import",
        "train",
        "eval",
        "play",
        "sweep",
        "demo",
    ],
)
def test_every_command_has_help(lmrl, command):
    answer = lmrl(*command.split(), "--help")
    assert answer.code == 0
    assert "--json" in answer.stdout


def test_tasks(lmrl, toy):
    rows = lmrl("tasks", "--json", "--plugin", toy).json
    assert all(
        set(row) == {"id", "family", "observation", "horizon", "score_range", "simulator", "published_best"}
        for row in rows
    )
    by_id = {row["id"]: row for row in rows}
    assert {"maze-fo", "maze-po", "toy"} <= set(by_id)
    assert by_id["maze-fo"]["horizon"] == 101
    assert by_id["maze-fo"]["published_best"] == "-6.97 (ilql)"
    assert by_id["toy"]["score_range"] == [-4.0, 0.0]
    assert "maze-po" in lmrl("tasks").stdout


def test_algorithms(lmrl, toy):
    assert {"bc", "ilql", "toy-bc"} <= {r["id"] for r in lmrl("algorithms", "--json", "--plugin", toy).json}


def test_the_algorithms_of_the_project_are_listed_with_their_kinds_and_sources(lmrl, monkeypatch):
    base.algorithm_ids()
    ours = {i: a for i, a in base._ALGORITHMS.items() if a.__module__.startswith("algos.")}
    monkeypatch.setattr(base, "_ALGORITHMS", ours)  # other tests' plugins are loaded in this process
    rows = lmrl("algorithms", "--json").json
    assert all(set(row) == {"id", "name", "kind", "source"} and all(row.values()) for row in rows)
    ids = {kind: {r["id"] for r in rows if r["kind"] == kind} for kind in {r["kind"] for r in rows}}
    assert ids == {
        "offline": {
            "bc",
            "filtered-bc",
            "mc",
            "ilql",
            "cql",
            "offline-archer",
            "rllib-offline-dqn",
            "tabular-q",
        },
        "online": {"online-filtered-bc", "ppo", "archer", "rllib-dqn"},
        "decoding": {"chai"},
        "prompted": {"api:MODEL"},
    }
    assert len(rows) == 14


def test_data_build_and_stats_agree(lmrl, toy, tmp_path):
    path = tmp_path / "toy.parquet"
    build = ("data", "build", "toy", "--plugin", toy, "--episodes", 30, "--seed", 4, "--out", path, "--json")
    built = lmrl(*build).json
    assert built["path"] == str(path)
    assert built["fingerprint"] == EpisodeDataset(path).fingerprint
    again = lmrl("data", "stats", path, "--json", "--out", tmp_path / "stats.json").json
    assert set(again) >= STATS
    assert {k: built[k] for k in STATS} == {k: again[k] for k in STATS}
    assert again["episodes"] == 30
    assert json.loads((tmp_path / "stats.json").read_text()) == again
    assert "paper, table 1" in lmrl("data", "stats", path).stdout
    assert lmrl(*build).json["fingerprint"] == built["fingerprint"]


def test_data_of_another_simulator(lmrl, tmp_path):
    path = tmp_path / "maze.parquet"
    build = ("data", "build", "maze-fo", "--episodes", 5, "--out", path)
    assert lmrl(*build, "--set", "env.layout=umaze", "--json").json["episodes"] == 5
    assert EpisodeDataset(path).metadata.build["env_kwargs"] == {"layout": "umaze"}
    path.unlink()
    assert refused(lmrl(*build, "--set", "training.steps=3"), "training", "env.NAME")
    assert files(tmp_path) == []


def test_data_lie_where_a_run_looks_for_them(lmrl, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMRL_OUT", "mine")
    build = ("data", "build", "maze-fo", "--episodes", 5, "--seed", 2, "--json")
    assert lmrl(*build).json["path"] == "mine/data/maze-fo-5-s2.parquet"
    other = lmrl(*build, "--set", "env.layout=umaze").json["path"]
    assert other == str(own_path(Path("mine"), "maze-fo", 5, 2, {"layout": "umaze"}))
    assert EpisodeDataset("mine/data/maze-fo-5-s2.parquet").metadata.build["env_kwargs"] == {}
    imported = lmrl("data", "import", "wordle", PUBLISHED, "--json").json["path"]
    assert imported == "mine/data/wordle-train_data.parquet"
    monkeypatch.delenv("LMRL_OUT")
    assert lmrl(*build).json["path"] == "runs/data/maze-fo-5-s2.parquet"


def test_statistics_of_no_episodes_are_json(lmrl, tmp_path):
    with EpisodeWriter(tmp_path / "empty.parquet", "maze-fo"):
        pass
    found = lmrl("data", "stats", tmp_path / "empty.parquet", "--json").json
    assert (found["episodes"], found["mean_return"], found["std_length"]) == (0, None, None)
    assert lmrl("data", "stats", tmp_path / "empty.parquet").code == 0


def test_data_import(lmrl, tmp_path):
    source = tmp_path / "published.jsonl"
    source.write_text("")
    target = tmp_path / "mine.parquet"
    assert refused(lmrl("data", "import", "maze-fo", source, "--out", target), "published.jsonl")
    assert refused(lmrl("data", "import", "maze-fo", tmp_path / "none", "--out", target), "none")
    assert not target.exists()


DIARY = """
import dataclasses
from envs.core import Episode, Segment
from envs.registry import get_task, register

def read(path):
    for line in path.open():
        segments = (Segment("Dear diary,\\n", is_action=False), Segment(line, is_action=True))
        yield Episode("diary", segments, True, False, True, -1, 0, "rule", "me")

register(dataclasses.replace(get_task("maze-fo"), id="diary", listed=False, reader_entry=f"{__name__}:read"))
"""


def test_data_import_reads_the_format_of_a_task_of_one_s_own(lmrl, tmp_path):
    plugin, source, target = (tmp_path / name for name in ("diary.py", "notes.txt", "notes.parquet"))
    plugin.write_text(DIARY)
    source.write_text("Rain.\nSun.\n")
    assert lmrl("data", "import", "diary", source, "--plugin", plugin, "--out", target).code == 0
    assert [episode.segments[1].text for episode in EpisodeDataset(target)] == ["Rain.\n", "Sun.\n"]


def test_data_import_of_a_task_that_nobody_published(lmrl, toy, tmp_path):
    (tmp_path / "x.json").write_text("[]")
    # The toy's plugin is loaded in this process already.
    answer = lmrl("data", "import", "toy", tmp_path / "x.json", "--out", tmp_path / "y.parquet")
    assert refused(answer, "toy", "published")


def test_train_prints_the_run_and_its_score_as_json(lmrl, quick, out):
    answer = lmrl("train", "bc", "toy", *quick("--out", out, "--json", "--seed", 3))
    assert answer.code == 0, answer.stderr
    assert set(answer.json) >= SCORE | {"run", "mlflow_run"}
    assert answer.json["run"] == str(out / "toy-bc-s3")
    assert answer.json["episodes"] == 10


def test_train_prints_a_table_and_where_to_look(lmrl, quick, out):
    answer = lmrl("train", "ilql", "toy", *quick("--out", out, steps=1))
    assert answer.code == 0, answer.stderr
    assert "95% interval" in answer.stdout
    assert f"lmrl ui --out {out}" in answer.stdout
    assert "training ilql: 1/1" in answer.stderr


def test_a_model_folder_and_a_config_file(lmrl, quick, out, toy_policy, tmp_path):
    (tmp_path / "my.yaml").write_text("optimizer: {lr: 0.5, engine: torch}\ntraining: {steps: 9}\n")
    answer = lmrl(
        *("train", "bc", "toy", *quick("--out", out, "--name", "run", "--json", steps=1)),
        *("--config", tmp_path / "my.yaml", "--model", toy_policy),
    )
    assert answer.code == 0, answer.stderr
    config = (out / "run" / "config.yaml").read_text()
    assert "lr: 0.5" in config
    assert "steps: 1\n" in config
    assert f"name: {toy_policy}" in config


def test_train_resumes_a_run_by_name(lmrl, run, out):
    again = lmrl("train", "--resume", "run", "--out", out, "--json")
    assert again.code == 0, again.stderr
    assert again.json["run"] == str(run)
    assert json.loads((run / "evaluation.json").read_text()).items() <= again.json.items()


@pytest.mark.parametrize(
    "option", [("--seed", "0"), ("--model", "tiny"), ("--init", "run"), ("--data", "x"), ("--name", "x")]
)
def test_what_a_resumed_run_cannot_change_is_refused(lmrl, run, out, option):
    before = (run / "config.yaml").read_bytes()
    refused = lmrl("train", "--resume", "run", *option, "--out", out)
    assert refused.code != 0
    assert option[0].removeprefix("--") in refused.stderr
    assert "a resumed run keeps its own" in " ".join(refused.stderr.replace("│", " ").split())
    assert (run / "config.yaml").read_bytes() == before


def test_eval_scores_the_baselines_and_the_policy(lmrl, run, out):
    rows = lmrl("eval", run, "toy", "--json").json
    assert [r["policy"] for r in rows] == ["random", "behaviour", "optimal", "bc"]
    assert all(set(r) >= SCORE for r in rows)
    assert {r["episodes"] for r in rows} == {10}
    assert {r["normalized_score"] for r in rows if r["policy"] == "optimal"} == {100.0}
    assert lmrl("eval", "run", "toy", "--out", out, "--json").json == rows


def test_eval_protocols_episodes_seeds_and_decodings(lmrl, run):
    def policy(*options):
        answer = lmrl("eval", run, "toy", "--json", *options)
        assert answer.code == 0, answer.stderr
        return answer.json[-1]

    assert policy("--protocol", "paper")["episodes"] == 20
    assert policy("--protocol", "paper", "--episodes", 7)["episodes"] == 7
    assert policy("--episodes", 1)["ci95"] is None
    assert policy("--seed", 1) == policy("--seed", 1)
    reranked = policy("--decoding", "rerank")
    assert reranked["invalid_rate"] == 0.0
    assert policy("--decoding", "greedy")["invalid_rate"] > 0.0
    assert policy("--set", "env.raises_in=[1]")["failed"] == 2


def test_eval_needs_no_actors_for_a_run_that_was_played_ahead(lmrl, run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["online"]["max_staleness"], config["resources"]["rollout_actors"] = 1, 2
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    answer = lmrl("eval", run, "toy", "--episodes", 2, "--json")
    assert answer.code == 0, answer.stderr


def test_a_damaged_checkpoint_is_warned_of_on_stderr(lmrl, quick, out):
    options = quick("--out", out, "--name", "two", "--json", "--set", "training.save_every=2")
    assert lmrl("train", "bc", "toy", *options).code == 0
    last = checkpoint.all_checkpoints(out / "two" / "checkpoints")[-1]
    (last / "state" / "model.safetensors").write_bytes(b"")
    answer = lmrl("eval", out / "two", "toy", "--episodes", 2, "--json")
    assert answer.json[-1]["episodes"] == 2
    assert "using an earlier checkpoint" in answer.stderr


def test_eval_takes_a_bare_transformers_folder(lmrl, toy, toy_policy):
    answer = lmrl("eval", toy_policy, "toy", "--plugin", toy, "--episodes", 5, "--json")
    assert answer.code == 0, answer.stderr
    assert answer.json[-1]["episodes"] == 5


def test_eval_plays_a_bare_folder_as_it_would_a_clone_of_the_task(lmrl, toy, toy_policy, monkeypatch):
    usual = {"decoding": {"mode": "propose"}}
    monkeypatch.setattr("lmrl_ray.cli.evaluation.tuned_defaults", lambda algo, task: usual)
    assert refused(lmrl("eval", toy_policy, "toy", "--plugin", toy), "decoding.mode: propose")


def test_errors_of_train_are_one_line_and_leave_nothing(lmrl, quick, out, toy, toy_policy, tmp_path):
    with EpisodeWriter(tmp_path / "empty.parquet", "toy"):
        pass
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    there = files(out)
    at = ("--out", out)
    assert refused(lmrl("train", "bc", "maze-of", *at), "maze-of", "Did you mean 'maze-")
    assert refused(lmrl("train", "ilq", "maze-fo", *at), "ilq", "Did you mean 'ilql'?")
    unknown = lmrl("train", "ilql", "maze-fo", *at, "--set", "algorithm.ta=1")
    assert refused(unknown, "algorithm.ta: unknown key", "algorithm.tau")
    wrong = lmrl("train", "bc", "toy", *quick(*at, "--set", "training.steps=many"))
    assert refused(wrong, "training.steps", "'many'")
    assert refused(lmrl("train", "bc", "toy", *quick(*at, "--set", "steps")), "key=value")
    for name, why in (("none", "no such file"), ("empty", "no episodes"), ("torn", "damaged")):
        path = tmp_path / f"{name}.parquet"
        assert refused(lmrl("train", "bc", "toy", *quick(*at, "--data", path)), str(path), why)
    assert refused(lmrl("train", "bc", "toy", *quick(*at, "--init", "nowhere")), "nowhere")
    assert refused(lmrl("train", "bc", "toy", *at, "--plugin", "no.py"), "no.py: there is no such file")
    assert refused(lmrl("train", "bc", "toy", *quick(*at, "--config", tmp_path / "no.yaml")), "no.yaml")
    assert refused(lmrl("train", "bc", "toy", *quick(*at, "--config", tmp_path)), "cannot be read")
    unlike = lmrl("train", "bc", "toy", *quick(*at, "--set", "algo=ilql"))
    assert refused(unlike, "--set: algo: is 'ilql', but 'bc' was asked for")
    assert refused(lmrl("train", "--resume", "nothing", *at), "'nothing' was not found")
    assert refused(lmrl("train", "bc", "toy", *quick(*at, "--set", "env.speed=3")), "env", "speed")
    assert files(out) == there


def test_errors_of_eval_are_one_line(lmrl, run, out, toy, toy_policy):
    there = files(out)
    assert refused(lmrl("eval", run, "toy", "--episodes", 0), "episodes: 0; expected at least 1")
    assert refused(lmrl("eval", "gone", "toy", "--out", out), "gone", "run")
    assert refused(lmrl("eval", run, "maze-fo"), "was trained on toy, not on maze-fo")
    rerank = lmrl("eval", toy_policy, "toy-free", "--plugin", toy, "--decoding", "rerank")
    assert refused(rerank, "rerank", "toy-free", "use sample")
    everywhere = lmrl("eval", run, "toy", "--set", "env.raises_in=[0, 1, 2, 3, 4]", "--json")
    assert refused(everywhere, "6 of 10 episodes failed", "the simulator broke")
    assert files(out) == there


def test_errors_of_data_are_one_line_and_leave_nothing(lmrl, toy, tmp_path):
    at = ("--out", tmp_path / "x.parquet")
    assert refused(lmrl("data", "build", "toy", "--episodes", 0, *at), "--episodes 0")
    assert refused(lmrl("data", "build", "toi", *at), "toi")
    assert refused(lmrl("data", "build", "maze-fo", "--episodes", 2, "--set", "env.speed=3", *at), "speed")
    assert refused(lmrl("data", "stats", tmp_path / "none.parquet"), "none.parquet: there is no such file")
    assert files(tmp_path) == []


def test_what_the_parser_refuses(lmrl, out):
    assert refused_by_the_parser(lmrl("train", "--out", out), "name an algorithm and a task")
    both = lmrl("train", "bc", "toy", "--resume", "run", "--out", out)
    assert refused_by_the_parser(both, "keeps its own")
    assert refused_by_the_parser(lmrl("eval", "run", "toy", "--protocol", "long"), "--protocol")
    assert refused_by_the_parser(lmrl("data", "build", "toy", "--seed", "-1"), "--seed")
    for command in (("stats", "x.parquet"), ("import", "wordle", "x.jsonl")):
        # Nothing in them is random.
        assert refused_by_the_parser(lmrl("data", *command, "--seed", "0"), "--seed")
    assert refused_by_the_parser(lmrl("fly"), "fly")


def test_an_error_that_is_not_ours_keeps_its_traceback(lmrl, monkeypatch):
    monkeypatch.setattr("lmrl_ray.cli.listing.task_rows", lambda: 1 / 0)
    answer = lmrl("tasks")
    assert answer.code == 1
    assert "ZeroDivisionError" in answer.stderr
    assert "test_cli.py" in answer.stderr


def test_a_plugin_that_breaks_is_one_line(lmrl, tmp_path):
    (tmp_path / "dividing_plugin.py").write_text("\n1 / 0\n")
    answer = lmrl("tasks", "--plugin", tmp_path / "dividing_plugin.py")
    assert refused(answer, "dividing_plugin.py, line 2: ZeroDivisionError: division by zero")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("env=5", "--set env=5: assigns to the whole section; here it is "),
        ("env.layoutt=umaze", "it has no layoutt. Did you mean env.layout? Known: observe, layout, goal,"),
    ],
)
@pytest.mark.parametrize("command", [("play",), ("data", "build"), ("eval", "api:some-model")])
def test_what_a_simulator_does_not_take_is_one_line(lmrl, command, setting, said):
    assert refused(lmrl(*command, "maze-fo", "--set", setting), said)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("training.stepz=3", "--set: training.stepz: unknown key. Did you mean training.steps"),
        ("lr=1", "--set: lr: unknown key. Did you mean optimizer.lr?"),
        ("beta=1", "--set: beta: unknown key. Did you mean decoding.beta?"),
        ("observation_weight=1", "unknown key. Did you mean algorithm.observation_weight?"),
        ("temperature=1", "Did you mean online.temperature or decoding.temperature?"),
        (
            "model=gpt2",
            "--set: model: found 'gpt2', but it is a section: write --model gpt2, or model.name=gpt2",
        ),
        ("optimizer=3", "should be `key: value` lines. Known keys: optimizer.engine, optimizer.zero_stage,"),
        ("algorithm=3", "--set: algorithm: found 3, but it should be `key: value` lines"),
        ("env=5", "--set: env: found 5, but it should be `key: value` lines"),
        ("env.layoutt=umaze", "--set: env: maze-fo does not accept {'layoutt': 'umaze'}: it has no layoutt."),
        ("env.wind=3", "it has no wind. Known: observe, layout, goal, invalid_penalty"),
    ],
)
def test_a_file_is_blamed_only_for_what_stands_in_it(lmrl, out, tmp_path, setting, said):
    (tmp_path / "good.yaml").write_text("training: {steps: 3}\n")
    train = ("train", "bc", "maze-fo", "--out", out, "--config", tmp_path / "good.yaml")
    assert refused(lmrl(*train, "--set", setting), said)
    (tmp_path / "good.yaml").write_text("training: {stepz: 3}\n")
    assert refused(lmrl(*train, "--set", "training.steps=4"), f"{tmp_path / 'good.yaml'}: training.stepz")


def test_the_arguments_of_a_simulators_base_class_are_known(lmrl):
    answer = lmrl("play", "chess-endgames", "--set", "env.max_move=3")
    assert refused(answer, "Did you mean env.max_moves? Known: test_positions, opponent, ")


@pytest.mark.parametrize("name", ["../escape", "a/b", ".hidden", "..", "x/", ""])
@pytest.mark.parametrize("run", [("bc", "maze-fo"), ("tabular-q", "maze-symbolic")])
def test_a_name_that_leads_elsewhere_is_refused(lmrl, out, run, name):
    there = files(out.parent)
    answer = lmrl("train", *run, "--name", name, "--out", out, "--data", out / "none.parquet")
    assert refused(answer, f"--name {name!r}: should be a folder's name")
    assert files(out.parent) == there


def test_a_taken_name_is_refused(lmrl, out):
    (out / "clone").mkdir()
    (out / "clone" / "config.yaml").write_text("")
    (out / "data").mkdir()
    there = files(out)
    named = ("--out", out, "--data", out / "none.parquet", "--name")
    text = lmrl("train", "bc", "maze-fo", *named, "clone")
    assert refused(text, f"run 'clone' exists in {out}/: choose another --name, or go on with --resume clone")
    # Which cannot be resumed.
    symbolic = lmrl("train", "tabular-q", "maze-symbolic", *named, "clone")
    assert refused(symbolic, "choose another --name")
    assert "--resume" not in symbolic.stderr
    assert refused(
        lmrl("train", "bc", "maze-fo", *named, "data"), "is there, and no run: choose another --name"
    )
    assert files(out) == there


@pytest.mark.parametrize(
    ("algo", "how"),
    [
        ("chai", "lmrl eval RUN TASK --decoding propose"),
        ("api:gpt-4", "lmrl eval api:MODEL TASK"),
        ("llm", "lmrl eval api:MODEL TASK"),
    ],
)
def test_what_is_listed_but_not_trained_says_how_it_is_run(lmrl, out, algo, how):
    assert refused(lmrl("train", algo, "car-dealer", "--out", out), f"{algo}: is not trained", how)


@pytest.mark.parametrize("command", [("play",), ("data", "build"), ("eval", "run"), ("eval", "api:model")])
def test_the_symbolic_maze_says_how_it_is_run(lmrl, command):
    answer = lmrl(*command, "maze-symbolic")
    assert refused(
        answer,
        "is for `lmrl train rllib-dqn|rllib-offline-dqn|tabular-q maze-symbolic` alone",
        "maze-fo is the same",
    )


@pytest.mark.slow
def test_a_run_in_a_process_of_its_own_can_be_interrupted_and_resumed(started, quick, out, lmrl):
    process = started("train", "bc", "toy", *quick("--out", out, "--name", "run", steps=100_000))
    for line in process.stderr:
        if line.startswith("training bc:"):
            break
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted; continue with --resume run"
    assert "Traceback" not in said
    config = (out / "run" / "config.yaml").read_text()
    (out / "run" / "config.yaml").write_text(config.replace("steps: 100000", "steps: 3"))
    assert lmrl("train", "--resume", "run", "--out", out, "--json").code == 0
    assert checkpoint.latest(out / "run" / "checkpoints") is not None


@pytest.mark.slow
def test_a_plugins_task_and_algorithm_train_and_are_played_by_an_actor(lmrl, quick, out, ray_cluster):
    here = lmrl("train", "toy-bc", "toy", *quick("--out", out, "--name", "here", "--json"))
    actor = ("--rollout-actors", 1, "--name", "actor", "--json")
    there = lmrl("train", "toy-bc", "toy", *quick("--out", out, *actor))
    assert here.code == there.code == 0, there.stderr
    changing = {"run", "mlflow_run"}
    assert {k: v for k, v in here.json.items() if k not in changing} == {
        k: v for k, v in there.json.items() if k not in changing
    }
    assert there.json["policy"] == "toy-bc"
    rows = lmrl("eval", out / "actor", "toy", "--rollout-actors", 1, "--json").json
    assert rows == lmrl("eval", out / "here", "toy", "--json").json

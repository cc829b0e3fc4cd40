"""What a stranger hands over runs no code, and what is started here is reached from this machine alone."""

import ipaddress
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from algos.bc import BC
from algos.models import ModelError, architecture
from algos.policy import load_policy
from lmrl_ray.checkpoint import CheckpointError, load_model, load_optimizer
from lmrl_ray.cli.evaluation import EvaluationRequest, _config
from lmrl_ray.config import ConfigError
from lmrl_ray.data import DataError, EpisodeDataset
from lmrl_ray.data.schema import METADATA_KEY, SCHEMA
from lmrl_ray.mlflow_store import TrackingError, import_mlflow, tracking_uri
from lmrl_ray.outbox import new_identity
from lmrl_ray.report.progress import Display
from lmrl_ray.resolve import find_policy, run_config_of
from lmrl_ray.tracking import Tracker
from lmrl_ray.train import Hooks, resume

pytestmark = pytest.mark.reliability


class Touch:
    """A pickle of it makes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def marker(tmp_path):
    """A file that exists once a stranger's code has run; the test fails if it does."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists()


@pytest.fixture
def malicious(marker):
    """Bytes that make the marker when they are unpickled."""
    content = pickle.dumps(Touch(marker))
    pickle.loads(content)
    assert marker.exists()
    marker.unlink()
    return content


@pytest.fixture
def code(marker):
    """Python that makes the marker when it runs."""
    return f"from pathlib import Path\nPath({str(marker)!r}).touch()\n"


@pytest.fixture
def policy(toy_policy, tmp_path):
    """A copy of a policy's folder, to be tampered with."""
    return Path(shutil.copytree(toy_policy, tmp_path / "theirs"))


def test_a_pickle_called_safetensors_is_refused(policy, malicious):
    (policy / "model.safetensors").write_bytes(malicious)
    with pytest.raises(ModelError, match="could not be loaded"):
        load_policy(policy)


def test_pickled_weights_are_not_looked_for(policy, malicious):
    (policy / "model.safetensors").unlink()
    (policy / "pytorch_model.bin").write_bytes(malicious)
    with pytest.raises(ModelError, match="could not be loaded"):
        load_policy(policy)


@pytest.fixture
def nobody_is_asked(monkeypatch):
    """Transformers would ask on the terminal whether to run what a folder brings."""

    def asked(_=""):
        raise AssertionError("somebody was asked")

    monkeypatch.setattr("builtins.input", asked)


def test_the_code_of_a_model_is_not_run(policy, code, nobody_is_asked):
    (policy / "theirs.py").write_text(code + "class Config:\n    pass\n")
    values = json.loads((policy / "config.json").read_text())
    values["model_type"] = "theirs"
    values["auto_map"] = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "theirs.Config")
    (policy / "config.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match="could not be loaded"):
        load_policy(policy)

    with pytest.raises(ModelError, match="could not be loaded"):
        architecture(policy)


def test_the_key_goes_to_no_address_that_a_folder_alone_names(policy, monkeypatch):
    theirs, here = "http://theirs.example/v1", "http://localhost:8000/v1"
    values = {"algo": "bc", "task": "twenty-questions", "env": {"simulator": "api:m", "base_url": theirs}}
    (policy / "config.yaml").write_text(json.dumps(values))
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)

    def evaluated(*settings):
        request = EvaluationRequest(str(policy), "twenty-questions", 1, "quick", None, 0, [*settings], [])
        return _config(request, policy, 0).env["base_url"]

    with pytest.raises(ConfigError, match=r"asked at http://theirs\.example/v1, which would get your OPENAI"):
        evaluated()
    with pytest.raises(ConfigError, match="would get your OPENAI_API_KEY"):
        resume(str(policy), policy.parent, Hooks(Display(quiet=True)))
    assert evaluated(f"env.base_url={theirs}") == theirs
    assert evaluated(f"env.base_url={here}") == here
    monkeypatch.setenv("OPENAI_BASE_URL", theirs)
    assert evaluated() == theirs


@pytest.mark.parametrize(
    "place",
    [
        "http://theirs.example:5000",
        "postgresql://theirs.example/db",
        "sqlite:////tmp/theirs.db",
        "databricks",
    ],
)
def test_a_run_reports_to_no_place_that_its_folder_alone_names(tmp_path, monkeypatch, place):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = tmp_path / "run"
    home.mkdir()
    new_identity(home, place, None)
    with pytest.raises(TrackingError, match=rf"reports to {re.escape(place)}, .* name it, too"):
        Tracker(tmp_path, home)


def test_nothing_from_outside_of_a_run_is_sent_for_it(out, tmp_path, capsys):
    tracker = Tracker(out, out / "run")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "key").write_text("secret")
    links = out / "run" / "links"
    links.mkdir()
    (links / "key").symlink_to(secrets / "key")
    for folder in (secrets, links):
        tracker.log_folder(folder, "theirs")
    client = import_mlflow().MlflowClient(tracking_uri(out))
    assert not client.list_artifacts(tracker.run_id)
    assert capsys.readouterr().err.count("it is not sent to MLflow") == 2


def test_the_code_of_a_tokenizer_is_not_run(policy, code, nobody_is_asked):
    (policy / "theirs.py").write_text(code + "class Tokenizer:\n    pass\n")
    values = json.loads((policy / "tokenizer_config.json").read_text())
    values["auto_map"] = {"AutoTokenizer": ["theirs.Tokenizer", "theirs.Tokenizer"]}
    (policy / "tokenizer_config.json").write_text(json.dumps(values))
    assert len(load_policy(policy).codec.encode("Yes.\n"))  # by its tokenizer.json, which is data


def test_pickled_heads_are_refused(policy, malicious, tmp_path):
    folder = tmp_path / "value"
    folder.mkdir()
    policy.rename(folder / "policy")
    (folder / "heads.json").write_text('{"q_heads": 1, "v_head": true, "tied": false}')
    (folder / "heads.safetensors").write_bytes(malicious)
    with pytest.raises(ModelError, match=r"value: heads\.safetensors cannot be loaded"):
        load_policy(folder)


def test_a_pickled_state_of_a_checkpoint_is_refused(tmp_path, malicious):
    state = tmp_path / "step-000001" / "state"
    state.mkdir(parents=True)
    (state / "trainer.json").write_text('{"step": 1}')
    for name in ("model.safetensors", "optimizer.safetensors"):
        (state / name).write_bytes(malicious)
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors cannot be read"):
        load_optimizer(state.parent)
    with pytest.raises(CheckpointError, match="its model does not fit"):
        load_model(state.parent, BC.__new__(BC))


@pytest.mark.parametrize("file", ["config.yaml", "manifest.json"])
@pytest.mark.parametrize("plugin", ["theirs.py", "theirs_module"])
def test_a_plugin_that_a_policy_names_is_run_only_if_the_user_names_it_too(
    policy, code, file, plugin, monkeypatch, toy
):
    monkeypatch.syspath_prepend(policy)
    (policy / "theirs.py").write_text(code)
    (policy / "theirs_module.py").write_text(code)
    name = str(policy / plugin) if plugin.endswith(".py") else plugin
    values = {"algo": "bc", "task": "toy", "plugins": [toy, name]}
    (policy / file).write_text(json.dumps(values if file == "config.yaml" else {"config": values}))
    with pytest.raises(ConfigError, match=f"names {name}, whose code is run only if you say so"):
        run_config_of(find_policy(str(policy), policy))


def test_a_plugin_that_the_user_has_named_may_have_moved(policy, toy):
    elsewhere = f"/another/machine/{Path(toy).name}"
    values = {"algo": "bc", "task": "toy", "plugins": [elsewhere]}
    (policy / "config.yaml").write_text(json.dumps(values))
    assert run_config_of(policy).plugins == (toy,)


def test_yaml_that_names_a_function_is_refused(policy, marker):
    (policy / "config.yaml").write_text(f"algo: !!python/object/apply:os.mkdir [{marker}]\n")
    with pytest.raises(ConfigError, match="is not YAML"):
        run_config_of(policy)


def test_a_pickle_in_the_metadata_of_a_data_file_is_not_read(toy_data, tmp_path, malicious):
    """As Arrow once kept Python's own column types, and as pandas keeps its index."""
    extension = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": malicious}
    table = pq.read_table(toy_data)
    fields = [SCHEMA.field(0).with_metadata(extension), *list(SCHEMA)[1:]]
    ours = pq.ParquetFile(toy_data).metadata.metadata[METADATA_KEY]
    schema = pa.schema(fields, metadata={METADATA_KEY: ours, b"pandas": malicious})
    pq.write_table(pa.table(table.columns, schema=schema), tmp_path / "theirs.parquet")
    theirs = EpisodeDataset(tmp_path / "theirs.parquet")
    assert list(theirs) == list(EpisodeDataset(toy_data))


def test_a_pickle_in_the_place_of_a_data_file_is_refused(tmp_path, malicious, lmrl):
    path = tmp_path / "theirs.parquet"
    path.write_bytes(malicious)
    with pytest.raises(DataError, match="is not a Parquet file"):
        EpisodeDataset(path)
    answer = lmrl("data", "import", "wordle", path)
    assert answer.code == 1
    assert answer.stderr.startswith("error: ")


@pytest.mark.slow
def test_ray_as_we_start_it_listens_on_loopback_alone_and_not_where_a_cluster_is_looked_for():
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"RAY_AUTH_MODE": "disabled"}
    script = Path(__file__).with_name("listening_sockets.py")
    ended = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=240, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.strip().splitlines()[-1])
    assert {"gcs_server", "raylet", "ray::Actor"} <= {program for program, _, _ in found}
    beyond = [entry for entry in found if not _is_loopback(entry[1])]
    assert beyond == []
    assert 8265 not in {port for _, _, port in found}


def _is_loopback(address):
    ip = ipaddress.ip_address(address)
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback

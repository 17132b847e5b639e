"""A search for settings: DVC experiments, chosen on validation cases."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import read_yaml
from doseledger.core.project.layout import ModelLayout
from doseledger.core.types import Tell
from doseledger.learn.run import monitored_in
from doseledger.ledger.provenance.dvc_project import fetch_file
from doseledger.ledger.provenance.revisions import experiment_commits
from doseledger.ledger.runs.training_check import read_history

Value = float | int | str
# Runs one trial's settings under a name and returns its validation score, the less the better.
Trial = Callable[[str, Mapping[str, Value]], float]
# So many trials that fail, before any succeeds, are no bad luck.
MOST_FAILURES = 3
# A trial gives a sign of life every so many seconds; one that was silent for twice as long
# was killed, and counts as failed.
ALIVE_S = 60


@dataclass(frozen=True)
class Range:
    """What a setting may be: a number between two ends, or one of some words.

    Parameters
    ----------
    key
        Its dotted name in params.yaml.
    low, high
        The ends; whole numbers give whole numbers.
    log
        Whether each factor counts alike, not each difference.
    words
        In place of ends.
    """

    key: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    words: tuple[str, ...] = ()

    def draw(self, trial: Any) -> Value:
        """Return what optuna's trial takes of it."""
        drawn: Value
        if self.words:
            drawn = trial.suggest_categorical(self.key, self.words)
        elif isinstance(self.low, int) and isinstance(self.high, int):
            drawn = trial.suggest_int(self.key, self.low, self.high, log=self.log)
        else:
            drawn = trial.suggest_float(self.key, self.low, self.high, log=self.log)
        return drawn


def read_range(text: str) -> Range:
    """Return what `KEY=LOW:HIGH`, `KEY=LOW:HIGH:log` or `KEY=A,B,C` says.

    Raises
    ------
    BadInput
        If it says none of these.

    Examples
    --------
    >>> read_range("lr=1e-4:1e-2:log")
    Range(key='lr', low=0.0001, high=0.01, log=True, words=())
    """
    key, _, said = text.partition("=")
    wanted = f"{text}: wanted KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=A,B,C"
    if not key or not said:
        raise BadInput(wanted)
    if ":" not in said:
        words = tuple(word for word in said.split(",") if word)
        if len(words) < 2:
            raise BadInput(f"{wanted}; one value is nothing to choose among")
        return Range(key, words=words)
    low, high, *rest = said.split(":")
    try:
        ends = (_number(low), _number(high))
    except ValueError as error:
        raise BadInput(wanted) from error
    if rest not in ([], ["log"]) or not ends[0] < ends[1] or (rest and ends[0] <= 0):
        raise BadInput(f"{wanted}, LOW below HIGH (above 0 for log)")
    return Range(key, *ends, log=bool(rest))


def _number(text: str) -> float:
    return int(text) if text.lstrip("-").isdigit() else float(text)


@dataclass(frozen=True)
class Search:
    """What is searched.

    Parameters
    ----------
    name
        Its trials are called `NAME-0`, `NAME-1`, ….
    ranges
        What each setting may be.
    n_trials
        How many more trials are run.
    seed
        Of the sampler (tree-structured Parzen estimators, Bergstra et al. 2011).
    store
        Folder of searches: one of that name goes on, in several processes at once too.
    of
        What is trained, and on what: scores of another model, or on other cases, can't be compared.
    """

    name: str
    ranges: Sequence[Range]
    n_trials: int
    seed: int
    store: Path
    of: str


def sweep(search: Search, run: Trial, tell: Tell) -> list[dict[str, Any]]:
    """Return the trials of a search that have a score, the best first.

    Raises
    ------
    NotReady
        If optuna is not installed, or the first trials all fail.
    BadInput
        If the search of that name is of something else.
    """
    try:
        import optuna
    except ImportError as error:
        raise NotReady('no optuna here; `pip install "doseledger[sweep]"`') from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    name = search.name
    search.store.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(storage=_storage(search), study_name=name, load_if_exists=True)
    if (before := study.user_attrs.get("of", search.of)) != search.of:
        raise BadInput(f"the search {name} is of {before}, not of {search.of}; give this one another --name")
    study.set_user_attr("of", search.of)

    def objective(trial: Any) -> float:
        # Anew for each trial, by its number: processes that began with one seed would draw the same.
        study.sampler = _sampler(search.seed, trial.number)
        values = {one.key: one.draw(trial) for one in search.ranges}
        try:
            score = run(f"{name}-{trial.number}", values)
        except NotReady as error:
            tell(f"{name}-{trial.number}: {error}")
            raise
        tell(f"{name}-{trial.number}: {score:.4g} with {_settings(values)}")
        return score

    def count_failures(study: Any, _trial: Any) -> None:
        ended = [one for one in study.get_trials(deepcopy=False) if one.state.is_finished()]
        if len(ended) >= MOST_FAILURES and all(one.value is None for one in ended):
            raise NotReady(f"the first {len(ended)} trials of {name} all failed; the last one said why, above")

    study.optimize(objective, n_trials=search.n_trials, catch=(NotReady,), callbacks=[count_failures])
    done = [one for one in study.get_trials(deepcopy=False) if one.value is not None]
    found = [{"name": f"{name}-{one.number}", "score": one.value, "settings": dict(one.params)} for one in done]
    return sorted(found, key=lambda one: (one["score"], one["name"]))


def _storage(search: Search) -> Any:
    import optuna

    with warnings.catch_warnings():
        # Optuna calls signs of life experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        url = f"sqlite:///{(search.store / f'{search.name}.db').resolve()}"
        return optuna.storages.RDBStorage(url, heartbeat_interval=ALIVE_S)


def _sampler(seed: int, number: int) -> Any:
    import optuna

    drawn = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        # Optuna calls it experimental that processes at once keep away from each other's trials.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=drawn, constant_liar=True)


def _settings(values: Mapping[str, Value]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def describe_sweep(found: Sequence[Mapping[str, Any]], n_val: int, n_test: int) -> list[str]:
    """Return a search's trials as lines, the best first, and what its best score is worth.

    Parameters
    ----------
    n_val, n_test
        How many validation cases chose, and how many test cases nobody looked at.
    """
    lines = [f"{one['name']}: {one['score']:.4g}, {_settings(one['settings'])}" for one in found]
    if not found:
        return ["no trial has a score"]
    return [
        *lines,
        f"{found[0]['name']} is the best of {len(found)} trials on {n_val} validation cases, the less the better; none "
        f"of the {n_test} test cases was predicted. The best of many errs on these less than on others: measure it "
        f"once, `dvc exp apply {found[0]['name']} && dvc repro`",
    ]


def run_trial(root: Path, at: ModelLayout, name: str, values: Mapping[str, Value], *, message: str) -> float:
    """Train a model with other settings as a DVC experiment, and return its best validation score.

    Nothing after training runs: no test case is predicted.

    Parameters
    ----------
    values
        Settings by dotted name.

    Raises
    ------
    NotReady
        If the experiment fails: with the end of what it said.
    """
    params = read_yaml(at.layout.params)
    changes = [f"{'' if _is_there(params, key) else '+'}{key}={value}" for key, value in values.items()]
    words = [word for change in changes for word in ("--set-param", change)]
    target = f"train@{at.layout.cohort}-{at.name}"
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", name, "--message", message]
    done = subprocess.run([*command, *words, target], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise NotReady(f"its experiment failed: {' / '.join(said[-3:])}")
    known = experiment_commits(root)
    if name not in known:
        raise NotReady(f"DVC ran {name} and kept no experiment of that name; `dvc exp show`")
    with TemporaryDirectory() as folder:
        path, history = (at.run / "history.csv").relative_to(at.layout.root), Path(folder) / "history.csv"
        fetch_file(root, str(path), known[name], history)
        frame = read_history(history)
    monitored = monitored_in(list(frame.columns))
    if monitored is None or frame[monitored].isna().all():
        raise NotReady(f"{name}: its history has no validation score")
    return float(frame[monitored].min())


def _is_there(params: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(params, Mapping) or part not in params:
            return False
        params = params[part]
    return True

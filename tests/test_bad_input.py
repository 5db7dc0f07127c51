"""Bad commands and files: exit code 2, a line a fault, no traceback, nothing written."""

# ruff: noqa: E501  (one case, one line)

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from annorun import cli, config

HEAD = "task,worker,label\n"
FILES = {
    "ok.csv": HEAD + "a,x,1\na,y,0\nb,x,1\n",
    "empty.csv": "",
    "head.csv": HEAD,
    "one_class.csv": HEAD + "a,x,1\nb,x,1\n",
    "twice.csv": HEAD + "a,x,1\nb,x,0\na,x,0\n",
    "column.csv": "task,worker,lable\na,x,1\n",
    "ragged.csv": HEAD + "a,x,1\nb,x\nc,x,0,9\n",
    "no_label.csv": HEAD + "a,x,1\nb,x,\n",
    "split.csv": "task,worker,label,split\na,x,1,train\nb,x,0,trian\n",
    "table.xlsx": "anything",
}
D = "dataset=digits"
METHODS = "allowed: " + ", ".join(
    sorted(p.stem for p in (config.conf_dir() / "method").glob("*.yaml"))
)
TARGETS = "allowed are names in annorun, torch.optim, lightning.pytorch"
TABLE = "dataset=table dataset.path={files}"

# name, command, one text a fault; "..." stands for whatever is between two parts of a line
CASES = [
    ("unknown option", f"{D} method=reelm", [f"method=reelm: no such option; {METHODS}; did you mean 'realm'?"]),
    ("unknown group", f"{D} methd=realm", ["methd=realm: unknown key 'methd'; allowed: ...method...; did you mean 'method'?"]),
    ("option of no near name", f"{D} method=zzz", [f"method=zzz: no such option; {METHODS}"]),
    (
        "several at once",
        f"{D} method=reelm noise=unifrom trainer.lrr=1 seed=-1 +typo=2",
        [
            "method=reelm: ...did you mean 'realm'?",
            "noise=unifrom: ...did you mean 'uniform'?",
            "trainer.lrr=1: unknown key 'lrr'; allowed: ...max_steps...; did you mean 'lr'?",
            "typo=2: unknown key; allowed: ",
            "seed=-1: allowed is an integer, 0 or more",
        ],
    ),
    ("+typo", f"{D} +typo=1", ["typo=1: unknown key; allowed: annotator_dist, data_seed, ..., trainer"]),
    ("++typo", f"{D} ++typo=1", ["typo=1: unknown key; allowed: annotator_dist, "]),
    ("+group typo", f"{D} +methd=realm", ["methd=realm: unknown key; ...; did you mean 'method'?"]),
    ("+typo in a group", f"{D} +trainer.typo=1", ["trainer.typo=1: unknown key; allowed: accelerator, "]),
    ("+argument", f"{D} +method.module.rate=1", ["method.module.rate=1: unknown key; allowed: expertise_lr, expertise_start"]),
    ("the runner's argument", f"{D} +method.module.seed=1", ["method.module.seed=1: unknown key; allowed: expertise_lr"]),
    ("wrong type", f"{D} trainer.lr=abc", ["trainer.lr=abc: allowed is a finite number above 0"]),
    ("list for a number", f"{D} trainer.lr=[1,2]", ["trainer.lr=[1, 2]: allowed is a finite number above 0"]),
    ("element of a list that is set, too", f"{D} 'trainer.betas=[0.9,0.99]' trainer.betas.1=0.9", ["trainer.betas.1=0.9: trainer.betas=[0.9,0.99] sets the whole list; allowed is one of the two, such as 'trainer.betas=[...]'"]),
    ("element of a list among others", f"{D} 'trainer.betas=[0.9,0.99]' trainer.betas.0=0.9 trainer.lrr=1", ["trainer.betas.0=0.9: trainer.betas=[0.9,0.99] sets the whole list", "trainer.lrr=1: unknown key 'lrr'"]),
    ("element of a swept list", "-cn nutmeg_competence seed=0 'annotator_dist.spam=[0,0],[0.1,0]' annotator_dist.spam.0=0.1", ["annotator_dist.spam.0=0.1: annotator_dist.spam=[0,0] sets the whole list", "annotator_dist.spam.0=0.1: annotator_dist.spam=[0.1,0] sets the whole list"]),
    ("element of what is no list", f"{D} trainer.lr.0=1", ["trainer.lr.0=1: unknown key '0'; allowed: none below it"]),
    ("number for a list", f"{D} trainer.betas=0.9", ["trainer.betas=0.9: allowed is a list of 2"]),
    ("prompt of another field", "\"dataset.prompt='{question} {choices}'\"", ["dataset.prompt={question} {choices}: allowed is a text with {question} and {options}"]),
    ("prompt with a format", "\"dataset.prompt='{question:d} {options:.5}'\"", ["dataset.prompt={question:d} {options:.5}: allowed is a text with {question} and {options}"]),
    ("questions at a mistyped path", "dataset=openbookqa dataset.path={files}/openbokqa", ["dataset.path={files}/openbokqa: no such file or folder"]),
    ("GGUF file that is not there", "model_size.family=causal model_size.causal=a/b.gguf", ["model_size.causal=a/b.gguf: no such file; allowed is one that exists"]),
    ("prompt that is no pattern", "\"dataset.prompt='{question'\"", ["dataset.prompt={question: allowed is a text with {question} and {options}"]),
    ("scratch of a pretrained model", "model_size=small model_size.start=scratch", ["model_size.start=scratch: google/flan-t5-small comes with its weights"]),
    ("list too long", f"{D} trainer.betas=[.9,.9,.9]", ["trainer.betas=[0.9, 0.9, 0.9]: allowed is a list of 2"]),
    ("bad element", f"{D} annotator_dist.expertise=[0.5,1.5]", ["annotator_dist.expertise=[0.5, 1.5]: allowed is a list of a number in [0, 1]"]),
    ("index of a list", f"{D} trainer.betas.x=1", ["trainer.betas.x=1: unknown key 'x'; allowed: none below it"]),
    ("NaN", f"{D} trainer.lr=nan", ["trainer.lr=nan: allowed is a finite number above 0"]),
    ("infinite", f"{D} trainer.lr=inf", ["trainer.lr=inf: allowed is a finite number above 0"]),
    ("NaN in a list", f"{D} trainer.betas=[nan,.9]", ["trainer.betas=[nan, 0.9]: allowed is a number in [0, 1)"]),
    ("beta of 1", f"{D} trainer.betas=[.9,1]", ["trainer.betas=[0.9, 1]: allowed is a number in [0, 1)"]),
    ("negative", f"{D} trainer.weight_decay=-1", ["trainer.weight_decay=-1: allowed is a finite number, 0 or more"]),
    ("fraction for a count", f"{D} trainer.max_steps=1.5", ["trainer.max_steps=1.5: allowed is an integer, 1 or more"]),
    ("bool for a count", f"{D} trainer.max_steps=true", ["trainer.max_steps=True: allowed is an integer, 1 or more"]),
    ("empty pool", f"{D} annotator_dist.expertise=[]", ["annotator_dist.expertise: empty; give one value"]),
    ("word out of range", f"{D} trainer.choose_on=gould", ["trainer.choose_on=gould: allowed is one of last, votes, gold; did you mean 'gold'?"]),
    ("word out of range, or null", f"{D} model_size.image=tinyy", ["model_size.image=tinyy: allowed is one of tiny or null; did you mean 'tiny'?"]),
    ("unknown mode", f"{D} mode=retri", ["mode=retri: allowed is one of cached, force"]),
    ("null for a word", f"{D} name=null", ["name=None: allowed is a text"]),
    ("name outside out_root", f"{D} name=../../x", ["name=../../x: allowed is the name of a folder below out_root"]),
    ("empty name", f"{D} name=", ["name=: allowed is the name of a folder below out_root"]),
    ("what annorun writes", f"{D} +choices.method=x", ["+choices.method=x: annorun writes choices"]),
    ("removed group", f"{D} ~method", ["method: has no option; a group cannot be removed, only chosen"]),
    ("removed key", f"{D} ~trainer.lr", ["trainer.lr: missing; it must be given"]),
    ("null group", f"{D} method=null", [f"method=null: one option is wanted; {METHODS}"]),
    ("two options", f"{D} trainer=[cpu,smoke]", ["trainer=[cpu,smoke]: one option is wanted; allowed: cpu, episodes, gpu, smoke"]),
    ("no value", f"{D} method", ["method: not an override; allowed is GROUP=OPTION or KEY=VALUE (...EQUAL"]),
    ("open bracket", f"{D} seed=[1", ["seed=[1: not an override; allowed is GROUP=OPTION or KEY=VALUE"]),
    (
        "${...} that leads nowhere",
        f"{D} 'seed=${{nosuch}}' 'out_root=${{oc.env:ANNORUN_NO_SUCH}}'",
        [
            "seed=${nosuch}: Interpolation key 'nosuch' not found; allowed is ",
            "out_root=${oc.env:ANNORUN_NO_SUCH}: ...'ANNORUN_NO_SUCH' not found...; allowed is ",
        ],
    ),
    ("several values without -m", f"{D} method=realm,noisy", ["method=realm,noisy: several values; add -m to run them all"]),
    ("sweep of one bad cell", f"-m {D} method=realm,reelm", [f"method=reelm: no such option; {METHODS}; did you mean 'realm'?"]),
    ("sweep over bad values", f"-m {D} trainer.lr=1,-1,nan", ["trainer.lr=-1: allowed", "trainer.lr=nan: allowed"]),
    ("glob sweep", f"-m {D} 'method=glob(*)' trainer.lr=-1", ["trainer.lr=-1: allowed is a finite number above 0"]),
    ("sweep over nothing", f"-m {D} 'seed=range(0,-1)'", ["seed=range(0,-1): no value; allowed is one or more"]),
    ("unknown -cn", "-cn realm_table", ["--config-name realm_table: no such config; allowed: config, ...realm_table1, ...; did you mean 'realm_table1'?"]),
    ("bad key of a sweep file", f"-cn realm_pools {D} seed=-1", ["seed=-1: allowed is an integer, 0 or more"]),
    ("unknown flag", f"{D} --fast", ["unrecognized arguments: --fast; allowed: --help"]),
    ("bad value of a flag", f"{D} --cfg jobs", ["argument --cfg/-c: invalid choice: 'jobs'...; allowed: --help"]),
    ("another conf folder", f"{D} -cd .", ["--config-path, --config-dir: not used here; allowed is "]),
    ("show a sweep", f"{D} --cfg job -m", ["--multirun: ...; allowed is one config to show, without -m"]),
    ("hydra's own key", f"{D} hydra.nosuch=1", ["hydra.nosuch"]),
    ("target: os.system", f"{D} dataset._target_=os.system", [f"dataset._target_=os.system: {TARGETS}"]),
    ("target: torch.load", f"{D} noise._target_=torch.load", [f"noise._target_=torch.load: {TARGETS}"]),
    ("target: eval", f"{D} method.module._target_=builtins.eval", [f"method.module._target_=builtins.eval: {TARGETS}"]),
    ("target: a prefix only", f"{D} dataset._target_=annorunner.x", [f"dataset._target_=annorunner.x: {TARGETS}"]),
    ("target: module in ours", f"{D} dataset._target_=annorun.results.subprocess.Popen", ["dataset._target_=annorun.results.subprocess.Popen: there is no module 'annorun.results.subprocess'"]),
    ("target: alias in ours", f"{D} dataset._target_=annorun.run.instantiate", ["dataset._target_=annorun.run.instantiate: annorun.run has no 'instantiate'; allowed: "]),
    ("target: misspelt", f"{D} dataset._target_=annorun.dataset.digits.digitz", ["dataset._target_=annorun.dataset.digits.digitz: annorun.dataset.digits has no 'digitz'; allowed: digits; did you mean 'digits'?"]),
    ("target: misspelt module", f"{D} dataset._target_=annorun.dataset.digit.digits", ["there is no module 'annorun.dataset.digit'; did you mean 'digits'?"]),
    ("target: null", f"{D} dataset._target_=null", [f"dataset._target_=None: {TARGETS}"]),
    ("target where none belongs", f"{D} +trainer._target_=os.system", ["trainer._target_=os.system: unknown key"]),
    ("target in a value", f"{D} 'annotator_dist.expertise=[{{_target_:os.system,command:id}}]'", ["annotator_dist.expertise=[{'_target_': 'os.system', 'command': 'id'}]: allowed is a list of a number"]),
    ("more than arguments", f"{D} +dataset._partial_=true", ["dataset._partial_=True: unknown key", "dataset._partial_: allowed beside _target_ are arguments only"]),
    ("real pool without votes", f"{D} noise=none annotator_dist=real", ["annotator_dist=real: dataset=digits has no votes of its own; allowed is a simulated pool"]),
    ("noise over real votes", f"{TABLE}/ok.csv noise=uniform", ["noise=uniform: annotator_dist=real uses the data's own votes; allowed is noise=none"]),
    ("simulation without truth", f"{TABLE}/ok.csv annotator_dist=spread", ["annotator_dist=spread: votes are simulated over the truth, and dataset=table has none; allowed is annotator_dist=real"]),
    ("oracle without gold", f"{TABLE}/ok.csv method=oracle", ["method=oracle: takes data of kind ...; dataset=table is of kind votes", "method=oracle: needs truth; dataset=table provides votes"]),
    ("network over votes alone", f"{TABLE}/ok.csv method=realm", ["method=realm: takes data of kind choice, text, features, image; dataset=table is of kind votes"]),
    ("size over votes alone", f"{TABLE}/ok.csv model_size=tiny", ["model_size=tiny: dataset=table has votes and no inputs; allowed is model_size=none"]),
    ("network method without one", f"{D} model_size=none", ["model_size=none: method=realm is a network; allowed is a size that names one, such as tiny"]),
    ("family of other data", f"{D} model_size.family=seq2seq", ["model_size.family=seq2seq: data of kind image want image"]),
    ("size without the family", f"{D} model_size=small", ["model_size=small: names no image network, which dataset=digits wants; allowed is model_size=tiny or model_size.image=NAME"]),
    ("float16 T5", "trainer=gpu trainer.precision=16-mixed", ["trainer.precision=16-mixed: T5 overflows in float16; allowed is 32-true or bf16-mixed"]),
    ("float16 on a CPU", f"{D} trainer.precision=16-mixed", ["trainer.precision=16-mixed: a CPU has none; allowed is 32-true or bf16-mixed"]),
    ("choose on nothing", f"{D} trainer.choose_on=votes trainer.val_share=0", ["trainer.choose_on=votes: wants validation items; allowed is last, or a trainer.val_share above 0"]),
    ("learn from no aggregator", f"{D} method=noisy method.module.target=hard", ["method.module.target=hard: method=noisy has no aggregator to learn from; allowed is votes or gold"]),
    ("no path given", "dataset=table", ["dataset.path: must be given (dataset.path=...)"]),
    ("missing file", f"{TABLE}/nosuch.csv", ["dataset.path={files}/nosuch.csv: no such file or folder (below ...); allowed is a path that exists"]),
    ("missing data set", "dataset=labelme dataset.path={files}/labelme", ["dataset.path={files}/labelme: no such file or folder"]),
    ("empty file", f"{TABLE}/empty.csv", ["{files}/empty.csv: an empty file; the first line names the columns: task, worker, label"]),
    ("header only", f"{TABLE}/head.csv", ["{files}/head.csv: no votes: there is a header and no row below it"]),
    ("one class", f"{TABLE}/one_class.csv", ["{files}/one_class.csv, ...column label: every label is '1'; at least 2 classes are needed"]),
    ("duplicate vote", f"{TABLE}/twice.csv", ["{files}/twice.csv, line 4, column worker: 'x' labelled task 'a' already in line 2; one vote"]),
    ("wrong column", f"{TABLE}/column.csv", ["{files}/column.csv...label"]),
    ("ragged rows", f"{TABLE}/ragged.csv", ["{files}/ragged.csv, line 3: 2 cells, and the header has 3", "{files}/ragged.csv, line 4: 4 cells"]),
    ("empty cell", f"{TABLE}/no_label.csv", ["{files}/no_label.csv, line 3, column label: empty; every vote needs a label"]),
    ("unknown split", f"{TABLE}/split.csv", ["{files}/split.csv, line 3, column split: 'trian'; allowed: train, test"]),
    ("binary file", f"{TABLE}/binary.csv", ["{files}/binary.csv, line 1: not a text file"]),
    ("Excel file", f"{TABLE}/table.xlsx", ["{files}/table.xlsx: ....csv"]),
    ("a folder for a file", f"{TABLE}", ["{files}: a folder; dataset.path=FILE takes one file"]),
    ("out_root is a file", f"{D} out_root={{files}}/ok.csv", ["out_root={files}/ok.csv: {files}/ok.csv is no folder that can be written to"]),
    ("out_root in a file", f"{D} out_root={{files}}/ok.csv/x", ["out_root={files}/ok.csv/x: {files}/ok.csv is no folder that can be written to"]),
    ("model folder without config.json", "model_size.seq2seq={files}/model", ["model_size.seq2seq={files}/model: no config.json there; allowed is a model's folder or a hub name"]),
]  # fmt: skip
# these need torch or transformers to be found out
HEAVY = [
    ("garbage config.json", "model_size.seq2seq={files}/garbage", ["model_size: {files}/garbage cannot be loaded (...); allowed is a folder with config.json"]),
    ("unknown hub name", "model_size.seq2seq=nobody/no-such-model", ["model_size: nobody/no-such-model cannot be loaded (...); allowed is "]),
]  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    (folder / "model").mkdir(parents=True)
    (folder / "garbage").mkdir()
    (folder / "garbage" / "config.json").write_text("{garbage", encoding="utf-8")
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "binary.csv").write_bytes(bytes(range(256)) * 4)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def words(command: str, files: Path) -> list[str]:
    return [w.replace("{files}", str(files)) for w in shlex.split(command)]


def assert_refused(code: object, error: str, expected: list[str], files: Path, here: Path) -> None:
    assert code == 2, error
    assert "Traceback" not in error
    lines = error.splitlines()
    assert len(lines) == len(expected), error
    for line in lines:
        assert line.startswith("annorun: "), line
    for text in expected:
        parts = text.replace("{files}", str(files)).split("...")
        assert any(in_order(line, parts) for line in lines), f"{text}\nis not in\n{error}"
    assert list(here.rglob("*")) == []


def in_order(line: str, parts: list[str]) -> bool:
    place = 0
    for part in parts:
        found = line.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return True


def refused(
    command: str,
    expected: list[str],
    files: Path,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["annorun", *words(command, files)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    printed = capsys.readouterr()
    assert_refused(stop.value.code, printed.err, expected, files, here)
    assert printed.out == ""


def test_there_are_enough_cases() -> None:
    assert len({name for name, _, _ in CASES + HEAVY}) == len(CASES + HEAVY) >= 25


@pytest.mark.parametrize(("command", "expected"), [pytest.param(c, e, id=n) for n, c, e in CASES])
def test_refused(
    command: str,
    expected: list[str],
    files: Path,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    refused(command, expected, files, here, monkeypatch, capsys)


@pytest.mark.parametrize(("command", "expected"), [pytest.param(c, e, id=n) for n, c, e in HEAVY])
def test_unreadable_model(
    command: str,
    expected: list[str],
    files: Path,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    refused(command, expected, files, here, monkeypatch, capsys)


def test_no_gpu(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    expected = ["trainer.accelerator=gpu: there is none here; allowed is cpu"]
    refused(f"{D} trainer=gpu", expected, here, here, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        pytest.param(c, e, id=n)
        for n, c, e in CASES
        if n in {"several at once", "duplicate vote", "unknown -cn", "sweep of one bad cell"}
    ],
)
def test_refused_in_a_process_of_its_own(
    command: str, expected: list[str], files: Path, here: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "annorun", *words(command, files)],
        cwd=here,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert_refused(done.returncode, done.stderr, expected, files, here)
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["--help", "--cfg job", "method=reelm"])
def test_a_reader_who_leaves_gets_no_traceback(command: str, here: Path) -> None:
    """`... --help | head -1`: what nobody reads any more is not written, in silence."""
    process = subprocess.Popen(
        [sys.executable, "-m", "annorun", *shlex.split(command)],
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    refused = command == "method=reelm"
    assert process.wait(timeout=120) == (2 if refused else 1)
    assert bool(error) == refused and "Traceback" not in error and "BrokenPipe" not in error


def test_a_bad_file_in_a_sweep_is_told_and_the_other_cells_run(
    files: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    swept = ",".join(str(files / name) for name in ("twice.csv", "ok.csv", "one_class.csv"))
    monkeypatch.setattr(sys, "argv", ["annorun", "-m", "dataset=table", f"dataset.path={swept}"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "twice.csv, line 4, column worker" in error
    assert "every label is '1'" in error
    assert len(list(here.rglob("row.json"))) == 1

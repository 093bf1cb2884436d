"""Rules that a reader of the repository relies on and a careless line would break."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXTS = {".py", ".md", ".yaml", ".yml", ".toml", ".json", ".csv", ".html", ".j2", ".css", ".cfg", ".txt", ".sh", ""}
FOLDERS = ("src", "recipes", "docs", "benchmarks", ".ci", ".github")
LARGEST = 2 * 1024**2

# Folders of one person's machine or of one cluster. Not preceded by a word or a dot, so that URLs and ./home are free.
MACHINE_PATH = re.compile(
    r"(?<![\w.:/-])(/(home|Users|root|work|mnt|scratch|data|tmp|gpfs|lustre)/[\w.-]+|[A-Z]:\\\w+)"
)


def tracked() -> list[Path]:
    """Files that git knows or would take."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def texts() -> list[Path]:
    top = [path for path in ROOT.iterdir() if path.is_file() and path.suffix in TEXTS and not path.name.startswith(".")]
    below = [path for name in FOLDERS for path in (ROOT / name).rglob("*") if path.is_file() and path.suffix in TEXTS]
    return sorted(path for path in [*top, *below] if "__pycache__" not in path.parts)


def machine_paths(text: str) -> list[str]:
    return [match.group(0) for match in MACHINE_PATH.finditer(text)]


def test_no_path_of_somebodys_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {where}" for path in texts() for where in machine_paths(path.read_text("utf-8"))
    ]
    assert not found


def pickles(source: str) -> Iterator[str]:
    """Yield what in a module could run code from a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {option.arg: ast.unparse(option.value) for option in node.keywords}
            if name == "torch.load" and options.get("weights_only") != "True":
                yield f"line {node.lineno}: torch.load without weights_only=True"
            if re.fullmatch(r"(pickle|cPickle|dill|joblib|cloudpickle)\.(load|loads|Unpickler)", name):
                yield f"line {node.lineno}: {name}"
            if name.endswith((".read_pickle", "yaml.load", "yaml.unsafe_load")):
                yield f"line {node.lineno}: {name}"
            if name.endswith("np.load") and options.get("allow_pickle", "False") != "False":
                yield f"line {node.lineno}: np.load with pickles"
            if options.get("trust_remote_code", "False") != "False":
                yield f"line {node.lineno}: trust_remote_code"
            if options.get("use_safetensors", "True") != "True" or options.get("safe_serialization", "True") != "True":
                yield f"line {node.lineno}: not safetensors"
        elif isinstance(node, ast.ImportFrom) and node.module in {"pickle", "dill", "joblib"}:
            yield from (f"line {node.lineno}: {name.name}" for name in node.names if name.name != "UnpicklingError")


def test_no_pickle_is_loaded_and_no_code_of_a_model_is_run() -> None:
    modules = [path for path in texts() if path.suffix == ".py"]
    assert modules
    found = [f"{path.relative_to(ROOT)} {what}" for path in modules for what in pickles(path.read_text("utf-8"))]
    assert not found


def test_no_large_file_and_no_picture_of_a_patient_is_kept() -> None:
    large = [f"{path.relative_to(ROOT)}: {path.stat().st_size}" for path in tracked() if path.stat().st_size > LARGEST]
    assert not large
    weights = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz", ".parquet", ".dcm"}
    assert not [path for path in tracked() if path.suffix in weights]


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("root = '/home/me/data'", 1),
        ("see /" + "work/main/src", 1),
        (r"C:\Users", 1),
        ("https://example.org/home/page", 0),
        ("../home/x and ./data/x and demo/data/x", 0),
        ("/dev/null", 0),
    ],
)
def test_the_path_rule_can_fail(line: str, count: int) -> None:
    assert len(machine_paths(line)) == count


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "pickle.load(f)",
        "pd.read_pickle(f)",
        "np.load(f, allow_pickle=True)",
        "AutoModel.from_pretrained(f, trust_remote_code=True)",
        "AutoModel.from_pretrained(f, use_safetensors=None)",
        "p.save_pretrained(f, safe_serialization=False)",
        "yaml.load(f)",
        "from pickle import loads",
    ],
)
def test_the_pickle_rule_can_fail(line: str) -> None:
    assert list(pickles(line))
    assert not list(pickles("torch.load(f, weights_only=True); yaml.safe_load(f); m(f, trust_remote_code=False)"))

"""The public API: these names, no more, no less."""

import subprocess
import sys

import pytest

import anyecg

PUBLIC_NAMES = """
    read prepare Record Annotation load list_models Tokens analyze Stream Result write_report
    train_tokenizer pretrain finetune evaluate AnyECGError
""".split()
TRAINING = {"train_tokenizer", "pretrain", "finetune", "evaluate"}


def test_the_list() -> None:
    assert sorted(anyecg.__all__) == sorted(PUBLIC_NAMES)
    assert set(PUBLIC_NAMES) <= set(dir(anyecg))


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_each_name_is_there_and_documented(name: str) -> None:
    if name in TRAINING:
        pytest.importorskip("torch")
    value = getattr(anyecg, name)
    assert callable(value)
    assert value.__module__.startswith("anyecg.")
    assert value.__doc__


def test_a_wrong_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'analyse'"):
        anyecg.analyse  # noqa: B018


def test_training_without_torch_says_what_to_install() -> None:
    code = """
import sys
sys.modules["torch"] = None  # makes `import torch` fail
import anyecg
try:
    anyecg.pretrain
except anyecg.AnyECGError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("MissingDependency anyecg.pretrain: torch is not installed")
    assert "anyecg[train]" in done.stdout

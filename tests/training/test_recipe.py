"""Recipes: the shipped one parses, overrides fit, a wrong key is an error that names it."""

import pytest

from anyecg.training.recipe import load_recipe


def test_the_shipped_recipe_is_nano(root):
    recipe = load_recipe(root / "recipes" / "nano_cpu.toml")
    assert recipe.name == "nano"
    assert (recipe.sizes.tokenizer.n_levels, recipe.sizes.tokenizer.codebook_size) == (6, 256)


def test_overrides_replace_values(root):
    overrides = ["tokenizer.steps=7", "out=elsewhere", "pretrain.mask.ratio=[0.1, 0.2]"]
    recipe = load_recipe(root / "recipes" / "nano_cpu.toml", overrides)
    assert recipe.tokenizer.steps == 7
    assert str(recipe.folder) == "elsewhere/nano"
    assert recipe.pretrain.mask.ratio == (0.1, 0.2)


@pytest.mark.parametrize(
    ("override", "message"),
    [("tokenizer.stepz=7", "tokenizer.stepz"), ("seed=abc", "seed"), ("seed", "key=value")],
)
def test_a_wrong_override_is_named(root, override, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(root / "recipes" / "nano_cpu.toml", [override])


def test_a_missing_recipe_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="no such recipe"):
        load_recipe(tmp_path / "none.toml")

"""The bake-off and the ablations: equal budgets, the same measuring for all, options that do what they say."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import anyecg
from anyecg.leads import STANDARD_LEADS
from anyecg.models.encoder import Encoder
from anyecg.models.sizes import PRESETS, EncoderConfig, TokenizerConfig
from anyecg.models.tokenizer import Tokenizer
from anyecg.record import Record
from anyecg.tokens import Grid, Tokens
from anyecg.training.batches import Augmentation, BatchMaker
from anyecg.training.datasets import Entry
from anyecg.training.pretrain import Student, pretraining_losses, with_complement
from anyecg.training.recipe import PretrainStage, TokenizerStage
from anyecg.training.train_tokenizer import grid_of, tokenizer_losses

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "quality"))

import ablations
import levels
import tokenizer as row
import trials
import waveforms
from baselines.autoencoder import ONLY_WAVEFORM, RoundedLatent, autoencoder, latent_options

TINY = {"width": 32, "n_heads": 2, "encoder_layers": 1, "decoder_layers": 1}


def beats(n_leads, n_samples, seed=0):
    """Spikes and bumps at 300 Hz, mV."""
    rng = np.random.default_rng(seed)
    phase = (np.arange(n_samples) / 300 - rng.uniform()) % 0.8
    beat = np.exp(-(((phase - 0.2) / 0.012) ** 2)) + 0.25 * np.exp(-(((phase - 0.45) / 0.05) ** 2))
    return (rng.uniform(0.5, 1.5, (n_leads, 1)) * beat + rng.normal(0, 0.01, (n_leads, n_samples))).astype(np.float32)


class MadeUpCorpus:
    """Four 12-lead and four single-lead records."""

    def __init__(self):
        leads = [list(STANDARD_LEADS)] * 4 + [["ECG"]] * 4
        self.entries = [Entry("made-up", f"r{i}", f"p{i}", "train", x, 9000, 500.0) for i, x in enumerate(leads)]

    def signal(self, entry, start=0, end=None):
        """Return a cut, as Corpus does."""
        return beats(len(entry.leads), entry.n_samples, int(entry.record[1:]))[:, start:end]


@pytest.fixture
def made_up(monkeypatch):
    """Trials of a few steps on made-up records."""
    noise = {"em": np.random.default_rng(5).normal(size=(2, 20_000)).astype(np.float32)}

    def training_batches(recipe, noise_probability):
        sizes = recipe.sizes.tokenizer
        augmentation = Augmentation(noise_probability=noise_probability)
        return BatchMaker(MadeUpCorpus(), noise, grid_of(sizes), sizes.lead_names, augmentation)

    monkeypatch.setattr(trials, "training_batches", training_batches)
    monkeypatch.setattr(trials, "STEPS", 4)
    monkeypatch.setattr(trials, "WINDOWS", {"n_many": 2, "n_few": 2})
    return training_batches


def a_part(noise_probability=1.0):
    noise = {"em": np.random.default_rng(5).normal(size=(2, 20_000)).astype(np.float32)}
    augmentation = Augmentation(noise_probability=noise_probability)
    maker = BatchMaker(MadeUpCorpus(), noise, Grid(), TokenizerConfig().lead_names, augmentation)
    return maker.parts(0, 0, 2, 0)[0]


# -- what is compared ----------------------------------------------------------------------------------------


def bits(sizes):
    return sizes.n_levels * np.log2(sizes.codebook_size) / (sizes.fragment_samples / sizes.fs_hz)


@pytest.mark.parametrize("trial", row.TRIALS, ids=lambda t: t.name)
def test_a_trial_is_what_its_name_says_and_sees_ten_seconds(trial):
    sizes = trial.sizes
    named = f"{sizes.fragment_samples / sizes.fs_hz:g}s-{sizes.n_levels}x{sizes.codebook_size}"
    assert trial.name.startswith(named)
    assert grid_of(sizes).block_samples == 3000
    trunk = {"width", "n_heads", "encoder_layers", "decoder_layers", "conv_channels", "decoder_reach"}
    assert sizes.model_dump(include=trunk) == TokenizerConfig().model_dump(include=trunk)


def test_the_bake_off_covers_what_was_asked_for():
    sizes = [t.sizes for t in row.TRIALS]
    assert {s.fragment_samples for s in sizes} == {75, 150, 300}
    assert {s.n_levels for s in sizes} >= {1, 2, 4, 8}
    assert {s.codebook_size for s in sizes} >= {256, 1024, 4096, 8192}
    assert sum(bits(s) == 96 for s in sizes) >= 6  # one rate to compare designs at
    assert sum(bits(s) == 40 for s in sizes) >= 3
    assert sum(bits(s) >= 160 for s in sizes) >= 2


def test_paper_is_the_preset_but_for_the_block():
    (paper,) = (t for t in row.TRIALS if t.name.endswith("paper"))
    assert paper.sizes.model_copy(update={"block_fragments": 60}) == PRESETS["paper"].tokenizer


def test_all_trials_have_one_budget(tmp_path):
    stages = [trials.recipe_of(t, tmp_path, tmp_path).tokenizer for t in row.TRIALS]
    budget = {"steps", "n_many", "n_few", "learning_rate", "warmup_steps", "bf16"}
    assert len({str(stage.model_dump(include=budget)) for stage in stages}) == 1
    seeds = {trials.recipe_of(t, tmp_path, tmp_path).seed for t in row.TRIALS}
    assert seeds == {0}


# -- training a trial ----------------------------------------------------------------------------------------


def small_trial(**options):
    sizes = trials.sizes_of(0.5, 2, 16, **TINY, code_dim=8)
    return trials.Trial(**{"name": "small", "sizes": sizes, **options})


def test_a_finished_trial_is_not_trained_again(made_up, tmp_path):
    first = trials.trained(small_trial(), Path("data"), tmp_path)
    state = tmp_path / "small" / "tokenizer" / "state.pt"
    written = state.stat().st_mtime_ns
    again = trials.trained(small_trial(), Path("data"), tmp_path)
    assert state.stat().st_mtime_ns == written
    assert all(torch.equal(x, again.state_dict()[name]) for name, x in first.state_dict().items())
    assert torch.load(state, weights_only=True)["step"] == 4


def test_a_change_of_the_batches_reaches_training(made_up, tmp_path):
    seen = []

    def spy(part):
        changed = trials.noisy_target(part)
        seen.append(changed)
        return changed

    trials.trained(small_trial(change=spy, stage={"noise_probability": 1.0}), Path("data"), tmp_path)
    assert len(seen) == 8  # four steps of two parts
    assert all(np.array_equal(part.clean, part.noisy) for part in seen)


def test_without_the_change_the_target_is_clean():
    part = a_part()
    assert not np.array_equal(part.clean, part.noisy)
    assert np.array_equal(trials.noisy_target(part).clean, part.noisy)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"code_dim": 8}, 2 * 16 * 8), ({"quantizer": "fsq", "fsq_values": (4, 4), "code_dim": 4}, 0)],
)
def test_codebooks_moved_by_averages_are_counted(options, expected):
    network = Tokenizer(TokenizerConfig(**TINY, n_levels=2, codebook_size=16, **options))
    assert trials.count_numbers(network) == sum(p.numel() for p in network.parameters()) + expected


def test_fsq_and_autoencoder_learn(made_up):
    torch.manual_seed(0)
    fsq = TokenizerConfig(**TINY, n_levels=4, codebook_size=64, quantizer="fsq", fsq_values=(8, 8), code_dim=8)
    plain = TokenizerConfig(**TINY, n_levels=8, codebook_size=16, **latent_options(8, 16))
    part = a_part()
    for network, weights in ((Tokenizer(fsq), {}), (autoencoder(plain), ONLY_WAVEFORM)):
        losses = tokenizer_losses(network.train(), TokenizerStage(steps=60, n_many=2, n_few=0, **weights))
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
        reached = []
        for step in range(60):
            optimizer.zero_grad()
            loss, numbers = losses([part], step)
            loss.backward()
            optimizer.step()
            reached.append(numbers["morphology_many"])
        assert reached[-1] < 0.6 * reached[0]


def test_the_autoencoders_latent_has_noise_in_training_and_steps_after():
    latent = RoundedLatent(3, (16,))
    z = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    rounded = latent.eval()(z).vectors
    assert torch.equal(rounded, latent.lookup(latent.encode(z)))
    noisy = latent.train()(z).vectors * 8  # in steps
    bounded = latent.bound(z.unflatten(-1, (3, 1))).flatten(1)
    assert float((noisy - bounded).abs().max()) <= 0.5
    assert float((noisy - bounded).std()) == pytest.approx(12**-0.5, rel=0.1)


def test_further_levels_leave_the_first_as_they_are_and_bring_the_vectors_closer():
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig(**TINY, n_levels=2, codebook_size=16, code_dim=8)).eval()
    vectors = torch.nn.functional.normalize(torch.randn(500, 8), dim=-1)
    longer = levels.with_more_levels(tokenizer, 5, vectors)
    assert longer.config.n_levels == 5
    before, after = tokenizer.quantizer.encode(vectors), longer.quantizer.encode(vectors)
    assert torch.equal(after[:, :2], before)
    left = [float((vectors - t.quantizer.lookup(c)).square().sum()) for t, c in ((tokenizer, before), (longer, after))]
    assert left[1] < 0.5 * left[0]
    assert torch.equal(longer.morphology.weight, tokenizer.morphology.weight)  # the decoder is the trained one


# -- measuring -----------------------------------------------------------------------------------------------


def test_a_trial_codes_records_as_the_engine_does(tiny_checkpoint, some_record):
    from anyecg.models.export import load_networks

    model = anyecg.load(tiny_checkpoint, threads=1)
    coder = waveforms.TorchCoder(load_networks(tiny_checkpoint)[0])
    prepared = model.prepare(some_record)
    expected, found = model.tokenize(prepared), coder.tokenize(prepared)
    assert (found.codes == expected.codes).mean() > 0.999  # two runtimes: a tie may fall otherwise
    assert np.array_equal(found.valid, expected.valid)
    assert round(found.bits_per_second, 1) == row.bits_per_second(coder.tokenizer.config)
    np.testing.assert_allclose(coder.decode(expected).signal, model.decode(expected).signal, atol=1e-4)


def record_of(seed, n_leads=2):
    return Record(beats(n_leads, 3000, seed), 300.0, STANDARD_LEADS[:n_leads], id=f"r{seed}", source_fs=300.0)


def test_fidelity_of_a_perfect_and_of_a_poor_copy():
    records = [record_of(seed) for seed in range(4)]
    perfect = waveforms.fidelity([(r.id, r, r) for r in records])
    assert (perfect["r"], perfect["prd"], perfect["n_leads"]) == (1.0, 0.0, 8)
    assert perfect["r_peak_error_ms"] == perfect["qrs_amplitude_error_percent"] == 0.0
    halved = waveforms.fidelity([(r.id, r, r.with_(signal=r.signal / 2)) for r in records])
    assert halved["r"] == 1.0
    assert halved["qrs_amplitude_error_percent"] == pytest.approx(50, abs=0.1)
    low, high = halved["prd_interval"]
    assert low <= halved["prd"] <= high


@dataclasses.dataclass
class Sign:
    """One code a fragment, 1 where its mean is above 0; decoding gives ones or minus ones."""

    def tokenize(self, record):
        mean = record.signal[:, :3000].reshape(record.n_leads, 20, 150).mean(axis=-1)
        codes = (mean > 0).astype(np.int32)[..., None]
        scale = np.ones((1, record.n_leads), np.float32)
        return Tokens(codes, np.ones(mean.shape, bool), scale, Grid(), 2, record.leads, 3000)

    def decode(self, tokens):
        return Record(np.repeat(2.0 * tokens.codes[..., 0] - 1, 150, axis=1).astype(np.float32), 300.0, tokens.leads)


def test_steadiness_under_noise_falls_with_it():
    rng = np.random.default_rng(0)
    slow = np.repeat(rng.normal(size=(2, 100)), 150, axis=1).astype(np.float32)
    records = [Record(np.repeat(rng.normal(size=(2, 20)), 150, axis=1).astype(np.float32), 300.0, ("I", "II"))]
    kept = [waveforms.under_noise(Sign(), records, slow, snr)["codes_kept"][0] for snr in (60.0, 0.0, -20.0)]
    assert kept[0] == 1.0
    assert kept[0] > kept[1] > kept[2]


def test_decoding_gains_what_it_takes_away_of_noise():
    class Halving:
        """Take half of what differs from the clean record away."""

        def tokenize(self, record):
            return record

        def decode(self, tokens):
            return tokens.with_(signal=(tokens.signal + record_of(1).signal) / 2)

    noise = np.random.default_rng(5).normal(size=(2, 20_000)).astype(np.float32)
    assert levels.snr_gain_db(Halving(), [record_of(1)], noise, 6.0) == pytest.approx(6.02, abs=0.01)


def test_wavelet_coding_gains_with_bits():
    entry = MadeUpCorpus().entries[0]
    test = waveforms.TestRecords({"made-up": [(entry, record_of(1))]}, np.zeros((2, 9000), np.float32))
    r = [waveforms.measure_wavelets(rate, test)["databases"]["made-up"]["r"] for rate in (20.0, 40.0, 160.0)]
    assert r[0] < r[1] < r[2]


def test_kept_numbers_are_not_made_twice(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return {"x": 1.5}

    assert [waveforms.kept(tmp_path / "a" / "n.json", make) for _ in range(2)] == [{"x": 1.5}] * 2
    assert len(calls) == 1


# -- tables --------------------------------------------------------------------------------------------------


def made_up_numbers(r, rate):
    one = {"r": r, "r_interval": [r, r], "prd": 10.0, "prd_interval": [9.0, 11.0], "codes": [], "n_leads": 1}
    one |= dict.fromkeys(waveforms.BEAT_ERRORS, 1.0)
    noise = {"codes_kept": [0.5], "r": 0.9, "r_of_input": 0.8}
    measured = {"databases": dict.fromkeys(waveforms.DATABASES, one), "noise": {"12": noise, "6": noise}}
    return measured | {"bits_per_second": rate, "learned_numbers": 1_000_000, "n_levels": 6, "snr_gain_db": 5.25}


def test_the_table_groups_by_rate_ranks_by_r_and_names_what_is_missing():
    numbers = {
        "trials": {"worse": made_up_numbers(0.8, 97.6), "better": made_up_numbers(0.9, 97.6)}
        | {"cheap": made_up_numbers(0.95, 27.6)},
        "wavelets": {},
        "shipped": made_up_numbers(0.99, 97.6),
        "more_levels": {"12": made_up_numbers(0.995, 193.6)},
        "not_run": ["0.25s-9x9"],
        "records": {"ptb-xl": {"n_records": 3, "n_patients": 2}},
        "budget": {"steps": 4, "n_many": 2, "n_few": 2},
    }
    text = row.tables(numbers)
    ranked = ("cheap", "**shipped nano**", "better", "worse", "*shipped nano, 12 levels*")
    order = [text.index(f"| {name}") for name in ranked]
    assert order == sorted(order)
    assert "Not run for want of time: 0.25s-9x9" in text
    assert "ptb-xl 3 of 2" in text
    assert "6 levels 5.2 dB, 12 levels 5.2 dB" in text


def test_a_cell_shows_the_spread_of_the_seeds():
    assert ablations._cell([0.9]) == "0.900"
    assert ablations._cell([0.9, 0.8]) == "0.850 (0.800-0.900)"


# -- options of pre-training ---------------------------------------------------------------------------------


def test_the_complement_hides_what_was_visible():
    part = a_part()
    mask = np.random.default_rng(0).random(part.valid.shape) < 0.4
    mask &= part.valid
    twice, masks = with_complement(part, mask)
    n = len(mask)
    assert np.array_equal(masks[:n] ^ masks[n:], twice.valid[:n])
    assert not (masks[:n] & masks[n:]).any()
    for field in dataclasses.fields(part):
        own, doubled = getattr(part, field.name), getattr(twice, field.name)
        assert np.array_equal(doubled[:n], own, equal_nan=True)
        assert np.array_equal(doubled[n:], own, equal_nan=True)


def levels_that_learn(**options):
    """Return for each level whether guessing its codes moves the encoder."""
    torch.manual_seed(0)
    config = TokenizerConfig(**TINY, n_levels=3, codebook_size=16, code_dim=8)
    network = Tokenizer(config).eval().requires_grad_(False)
    student = Student(Encoder(EncoderConfig(width=16, n_layers=1, n_heads=2), config, network.quantizer.codebooks))
    stage = PretrainStage(steps=1, n_many=2, n_few=0, **options)
    pretraining_losses(student, network, stage, 0)([a_part()], 0)[0].backward()
    return (student.encoder.log_frequency.grad.abs().sum(dim=1) > 0).tolist()


def test_only_the_asked_for_levels_are_guessed():
    assert levels_that_learn() == [True, True, True]
    assert levels_that_learn(guessed_levels=1) == [True, False, False]
    assert levels_that_learn(symmetric=True) == [True, True, True]


@pytest.mark.parametrize("name", ablations.ENCODERS)
def test_every_encoder_ablation_is_a_recipe(name, tiny_checkpoint, tmp_path):
    bench = ablations.Bench.__new__(ablations.Bench)
    bench.model, bench.data, bench.work = anyecg.load(tiny_checkpoint, threads=1), tmp_path, tmp_path
    changed = ablations.encoder_recipe("x", ablations.ENCODERS[name], 0, bench)
    as_it_is = ablations.encoder_recipe("x", {}, 0, bench)
    assert (changed == as_it_is) == (name == ablations.AS_IT_IS)
    seen = [r.pretrain.steps * (r.pretrain.n_many * (1 + r.pretrain.symmetric)) for r in (changed, as_it_is)]
    assert seen[0] == seen[1]  # equal compute


def test_every_tokenizer_ablation_differs_from_what_is():
    as_it_is = ablations.TOKENIZERS[ablations.AS_IT_IS]
    assert as_it_is["sizes"] == row.TRIALS[0].sizes  # whose weights it borrows
    assert all(options != as_it_is for name, options in ablations.TOKENIZERS.items() if name != ablations.AS_IT_IS)

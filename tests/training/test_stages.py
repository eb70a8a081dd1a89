"""Both stages: one batch can be overfitted, resumed equals uninterrupted, unknown attributes carry no loss."""

import json
import os
import signal

import numpy as np
import pytest
import torch

from anyecg.models.encoder import Encoder
from anyecg.models.tokenizer import Tokenizer
from anyecg.training.loop import learning_rate, train
from anyecg.training.pretrain import Student, amplitude_loss, codes_of, pretraining_losses
from anyecg.training.train_tokenizer import demography_loss, frequency_loss, steadiness_loss, tokenizer_losses


def tokenizer_run(recipe, batches, folder, stop_at=None):
    torch.manual_seed(0)
    model = Tokenizer(recipe.sizes.tokenizer)
    losses = tokenizer_losses(model, recipe.tokenizer)
    return train(model, losses, lambda step: batches.parts(0, step, 2, 2), recipe.tokenizer, folder, 0, stop_at)


def encoder_run(recipe, batches, folder, stop_at=None):
    torch.manual_seed(0)
    tokenizer = Tokenizer(recipe.sizes.tokenizer).eval()
    model = Student(Encoder(recipe.sizes.encoder, recipe.sizes.tokenizer, tokenizer.quantizer.codebooks))
    losses = pretraining_losses(model, tokenizer, recipe.pretrain, 0)
    return train(model, losses, lambda step: batches.parts(0, step, 2, 2, 3), recipe.pretrain, folder, 0, stop_at)


@pytest.mark.parametrize("run", [tokenizer_run, encoder_run])
def test_resumed_equals_uninterrupted(run, recipe, batches, tmp_path):
    whole = run(recipe, batches, tmp_path / "whole").state_dict()
    run(recipe, batches, tmp_path / "parts", stop_at=3)
    resumed = run(recipe, batches, tmp_path / "parts").state_dict()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def test_ctrl_c_finishes_the_step_and_keeps_it(recipe, batches, tmp_path):
    def parts(step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return batches.parts(0, step, 2, 2)

    torch.manual_seed(0)
    model = Tokenizer(recipe.sizes.tokenizer)
    with pytest.raises(KeyboardInterrupt):
        train(model, tokenizer_losses(model, recipe.tokenizer), parts, recipe.tokenizer, tmp_path / "parts", 0)
    kept = torch.load(tmp_path / "parts" / "state.pt", weights_only=True)["step"]
    assert 0 < kept < 8
    resumed = tokenizer_run(recipe, batches, tmp_path / "parts").state_dict()
    whole = tokenizer_run(recipe, batches, tmp_path / "whole").state_dict()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_the_log_has_losses_and_code_use(recipe, batches, tmp_path):
    tokenizer_run(recipe, batches, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8]
    assert {"loss", "morphology_many", "frequency_few", "usage_many", "perplexity_few", "lr"} <= set(lines[0])
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_the_tokenizer_overfits_one_batch(recipe, batches):
    torch.manual_seed(0)
    model = Tokenizer(recipe.sizes.tokenizer).train()
    losses = tokenizer_losses(model, recipe.tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    parts = batches.parts(0, 0, 2, 2)
    reached = []
    for step in range(120):
        optimizer.zero_grad()
        loss, numbers = losses(parts, step)
        loss.backward()
        optimizer.step()
        reached.append(numbers["morphology_many"])
    assert reached[-1] < 0.4 * reached[0]


def test_the_encoder_overfits_one_batch(recipe, batches):
    torch.manual_seed(0)
    tokenizer = Tokenizer(recipe.sizes.tokenizer).eval()
    model = Student(Encoder(recipe.sizes.encoder, recipe.sizes.tokenizer, tokenizer.quantizer.codebooks)).train()
    losses = pretraining_losses(model, tokenizer, recipe.pretrain, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    parts = batches.parts(0, 0, 2, 2, 3)
    reached = []
    for _ in range(150):
        optimizer.zero_grad()
        loss, numbers = losses(parts, 0)
        loss.backward()
        optimizer.step()
        reached.append(numbers["loss_many"])
    assert reached[-1] < 0.3 * reached[0]


def test_training_tokenises_block_by_block(recipe, batches):
    torch.manual_seed(0)
    tokenizer = Tokenizer(recipe.sizes.tokenizer).eval()
    part = batches.parts(0, 0, 0, 2, 3)[0]
    codes = codes_of(tokenizer, part)
    assert codes.shape == (2, 1, 60, 2)
    second = [torch.from_numpy(x[:, :, 20:40]) for x in (part.noisy, part.valid)]
    assert torch.equal(codes[:, :, 20:40], tokenizer.codes(*second, torch.from_numpy(part.lead_ids)))


def test_a_part_is_named_after_its_leads(recipe, batches):
    losses = tokenizer_losses(Tokenizer(recipe.sizes.tokenizer).train(), recipe.tokenizer)
    _, numbers = losses(batches.parts(0, 0, 0, 2), 0)
    assert "morphology_few" in numbers
    assert "morphology_many" not in numbers


def test_unknown_attributes_carry_no_loss(recipe, batches):
    model = Tokenizer(recipe.sizes.tokenizer)
    part = batches.parts(0, 0, 3, 0)[0]
    views = model(*(torch.from_numpy(x) for x in (part.noisy, part.valid, part.lead_ids))).views
    with_all = demography_loss(views.demography, part).item()
    part.age[:], part.sex[:] = np.nan, np.nan  # weight is unknown already
    assert demography_loss(views.demography, part).item() == 0.0
    assert with_all > 0


def test_bands_the_source_could_not_record_carry_no_loss(recipe, batches):
    model = Tokenizer(recipe.sizes.tokenizer)
    part = batches.parts(0, 0, 3, 0)[0]
    views = model(*(torch.from_numpy(x) for x in (part.noisy, part.valid, part.lead_ids))).views
    part.source_fs[:] = 60.0  # recorded up to 30 Hz: the band from 37.5 Hz is out
    before = frequency_loss(model, views, part)
    high = torch.from_numpy(model.wavelet_bands_hz == 37.5)
    views.wavelet.data[..., high] += 10.0
    assert torch.equal(frequency_loss(model, views, part), before)
    views.wavelet.data[..., ~high] += 10.0
    assert frequency_loss(model, views, part) > before + 10


def test_the_learning_rate_warms_up_and_decays(recipe):
    stage = recipe.tokenizer.model_copy(update={"steps": 100, "warmup_steps": 10})
    rates = [learning_rate(stage, step) for step in range(100)]
    assert max(rates) == rates[10] == stage.learning_rate
    assert rates[0] == pytest.approx(stage.learning_rate / 10)
    assert rates[-1] < 0.02 * stage.learning_rate


def test_vectors_are_steady_if_the_noise_is_a_gain(recipe, batches):
    """The clean signal is scaled on its own: a part that is noisy only by a factor asks nothing of the encoder."""
    torch.manual_seed(0)
    model = Tokenizer(recipe.sizes.tokenizer)
    part = batches.parts(0, 0, 3, 0)[0]

    def loss():
        z = model(*(torch.from_numpy(x) for x in (part.noisy, part.valid, part.lead_ids))).z
        return steadiness_loss(model, z, part)

    power = (np.square(part.noisy) * part.recorded).sum(axis=(2, 3)) / part.recorded.sum(axis=(2, 3)).clip(1)
    part.noisy = (part.noisy / np.sqrt(power).clip(1e-3)[:, :, None, None]).astype(np.float32)
    part.clean = 0.5 * part.noisy
    assert loss().item() == pytest.approx(0.0, abs=1e-5)
    part.clean = part.clean + np.random.default_rng(0).normal(size=part.clean.shape).astype(np.float32)
    noisy = loss()
    assert noisy > 0.01
    noisy.backward()
    assert model.to_code[1].weight.grad.abs().sum() > 0


def test_amplitudes_are_asked_of_hidden_leads_only():
    guess, truth = torch.tensor([[1.0, 5.0]]), torch.tensor([[1.0, 2.0]])
    assert amplitude_loss(guess, truth, torch.tensor([[True, False]])) == 0
    assert amplitude_loss(guess, truth, torch.tensor([[True, True]])) == pytest.approx(2.5 / 2)
    assert amplitude_loss(guess, truth, torch.tensor([[False, False]])) == 0


def test_the_amplitude_of_hidden_leads_is_learned(recipe, batches):
    stage = recipe.pretrain.model_copy(
        update={"mask": recipe.pretrain.mask.model_copy(update={"fragments": 0.0, "spans": 0.0, "leads": 1.0})}
    )
    torch.manual_seed(0)
    tokenizer = Tokenizer(recipe.sizes.tokenizer).eval()
    model = Student(Encoder(recipe.sizes.encoder, recipe.sizes.tokenizer, tokenizer.quantizer.codebooks))
    loss, numbers = pretraining_losses(model, tokenizer, stage, 0)(batches.parts(0, 0, 4, 0, 1), 0)
    loss.backward()
    assert numbers["amplitude_many"] > 0
    assert model.encoder.to_amplitude.weight.grad.abs().sum() > 0


def test_the_teacher_follows_and_sees_what_is_hidden(recipe, batches):
    torch.manual_seed(0)
    tokenizer = Tokenizer(recipe.sizes.tokenizer).eval()
    student = Student(Encoder(recipe.sizes.encoder, recipe.sizes.tokenizer, tokenizer.quantizer.codebooks))
    before = student.teacher.norm.weight.clone()
    with torch.no_grad():
        student.encoder.norm.weight += 1.0
    student.follow(0.75)
    torch.testing.assert_close(student.teacher.norm.weight, before + 0.25)
    part = batches.parts(0, 0, 2, 0, 1)[0]
    valid, lead_ids = torch.from_numpy(part.valid), torch.from_numpy(part.lead_ids)
    view = student.teachers_view(
        codes_of(tokenizer, part), valid, lead_ids, torch.zeros(lead_ids.shape), torch.ones(lead_ids.shape) > 0
    )
    torch.testing.assert_close(view.std(dim=-1, correction=0), torch.ones(valid.shape), atol=1e-2, rtol=0)
    loss, numbers = pretraining_losses(student, tokenizer, recipe.pretrain, 0)([part], 0)
    loss.backward()
    assert numbers["latent_many"] > 0
    assert all(p.grad is None for p in student.teacher.parameters())

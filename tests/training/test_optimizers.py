"""The optimizers: who decays, who does not, and the scaling factors' own group. Real steps, real parameters."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from helpers import small_settings
from trained_binarization.binarization.layers import alphas, latent_weights, scaling_penalty
from trained_binarization.binarization.method import Method
from trained_binarization.networks.vgg_small import VGGSmall
from trained_binarization.study import Finetuning, Pretraining
from trained_binarization.training.optimizers import build_optimizers, restore_state, set_rate, state_tensors


def finetuning(**changes: Any) -> Finetuning:
    return Finetuning.model_validate(small_settings()["finetune"] | changes)


def network(**changes: Any) -> nn.Module:
    torch.manual_seed(0)
    return VGGSmall(Method(**changes), width=0.125, image_size=16)


@pytest.mark.parametrize("granularity", ["layer", "channel"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_weight_decay_never_touches_a_factor(optimizer: str, granularity: str) -> None:
    binary = network(weight_scaling_granularity=granularity)
    training = finetuning(optimizer=optimizer, weight_decay=50.0, latent_weight_decay=70.0)
    optimizers = build_optimizers(binary, training)
    before = {name: p.detach().clone() for name, p in binary.named_parameters()}
    for parameter in binary.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for one in optimizers:
        one.step()
    for name, parameter in binary.named_parameters():
        unchanged = torch.equal(parameter.detach(), before[name])
        all_zero = not before[name].any()  # BatchNorm's shift: nothing to decay
        assert unchanged == (name.endswith("alpha") or all_zero), name


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_no_decay_at_all_where_both_coefficients_are_zero(optimizer: str) -> None:
    binary = network()
    before = [p.detach().clone() for p in binary.parameters()]
    optimizers = build_optimizers(binary, finetuning(optimizer=optimizer, weight_decay=0.0, latent_weight_decay=0.0))
    for parameter in binary.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for one in optimizers:
        one.step()
    assert all(torch.equal(p.detach(), old) for p, old in zip(binary.parameters(), before, strict=True))


@pytest.mark.parametrize(("coefficient", "latent"), [("weight_decay", False), ("latent_weight_decay", True)])
def test_each_coefficient_has_its_own_parameters(coefficient: str, latent: bool) -> None:
    binary = network()
    settings = {
        "optimizer": "sgd",
        "momentum": 0.0,
        "weight_decay": 0.0,
        "latent_weight_decay": 0.0,
        "learning_rate": 0.1,
    }
    optimizers = build_optimizers(binary, finetuning(**settings | {coefficient: 2.0}))
    latents = {id(p) for p in latent_weights(binary)}
    factors = {id(p) for p in alphas(binary)}
    before = {id(p): p.detach().clone() for p in binary.parameters()}
    for parameter in binary.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for one in optimizers:
        one.step()
    for parameter in binary.parameters():
        decayed = id(parameter) not in factors and (id(parameter) in latents) == latent
        expected = before[id(parameter)] * (1 - 0.1 * 2.0 if decayed else 1.0)
        torch.testing.assert_close(parameter.detach(), expected)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_factors_have_a_group_of_their_own_plain_sgd(optimizer: str) -> None:
    binary = network()
    main, own = build_optimizers(binary, finetuning(optimizer=optimizer, alpha_learning_rate=0.25, weight_decay=3.0))
    assert type(own) is SGD
    (group,) = own.param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in alphas(binary)}
    assert (group["momentum"], group["weight_decay"], group["nesterov"], group["lr"]) == (0.0, 0, False, 0.25)
    elsewhere = {id(p) for group in main.param_groups for p in group["params"]}
    assert elsewhere | {id(p) for p in alphas(binary)} == {id(p) for p in binary.parameters()}
    assert not elsewhere & {id(p) for p in alphas(binary)}
    # Two steps along one gradient go twice as far as one: no momentum, no normalisation.
    before = [p.detach().clone() for p in alphas(binary)]
    for _ in range(2):
        for parameter in alphas(binary):
            parameter.grad = torch.full_like(parameter, 0.1)
        own.step()
    for parameter, old in zip(alphas(binary), before, strict=True):
        torch.testing.assert_close(parameter.detach(), old - 2 * 0.25 * 0.1)


def test_l2_shrinks_weight_factors_by_one_minus_rate_times_lambda_a_step() -> None:
    binary = network(weight_scaling_l2=0.5)
    optimizers = build_optimizers(binary, finetuning(alpha_learning_rate=0.1))
    before = {name: p.detach().clone() for name, p in binary.named_parameters()}
    penalty = scaling_penalty(binary)
    assert isinstance(penalty, torch.Tensor)
    penalty.backward()
    for one in optimizers:
        one.step()
    for name, parameter in binary.named_parameters():
        weight_factor = name.endswith("alpha") and "activation" not in name
        expected = before[name] * (1 - 0.1 * 0.5) if weight_factor else before[name]
        torch.testing.assert_close(parameter.detach(), expected, msg=name)


def test_full_precision_has_one_optimizer_with_everything() -> None:
    full = VGGSmall(None, width=0.125, image_size=16)
    (only,) = build_optimizers(full, Pretraining.model_validate(small_settings()["pretrain"]))
    assert {id(p) for group in only.param_groups for p in group["params"]} == {id(p) for p in full.parameters()}


def test_without_trained_factors_there_is_no_group_for_them() -> None:
    binary = network(activation_scaling="none", weight_scaling="analytic")
    assert len(build_optimizers(binary, finetuning())) == 1


def test_the_schedule_scales_every_groups_own_rate() -> None:
    optimizers = build_optimizers(network(), finetuning(learning_rate=0.4, alpha_learning_rate=0.02))
    for value in (0.5, 0.1, 1.0):
        set_rate(optimizers, value)
        rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
        assert rates == pytest.approx([0.4 * value, 0.4 * value, 0.02 * value])


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_state_survives_being_put_away_and_back(optimizer: str, memory: torch.memory_format) -> None:
    # Fused optimizers walk the raw memory: state in another order than its parameter would be another's state.
    def one_step(binary: nn.Module, optimizers: list[Any], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in binary.parameters():
            gradient = torch.randn(parameter.shape, generator=generator)
            parameter.grad = torch.empty_like(parameter).copy_(gradient)  # laid out as autograd does: as the parameter
        for one in optimizers:
            one.step()

    first, training = network().to(memory_format=memory), finetuning(optimizer=optimizer)
    optimizers = build_optimizers(first, training)
    for seed in range(3):
        one_step(first, optimizers, seed)
    kept = {name: tensor.contiguous().clone() for name, tensor in state_tensors(optimizers).items()}
    assert kept
    second = network().to(memory_format=memory)
    second.load_state_dict(first.state_dict())
    again = build_optimizers(second, training)
    restore_state(again, kept)
    one_step(first, optimizers, 9)
    one_step(second, again, 9)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name

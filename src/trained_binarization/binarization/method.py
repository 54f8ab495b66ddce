"""The switches of the method: what a binary layer does, as a plain value."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Any, Literal, get_args, get_origin, get_type_hints

from trained_binarization.binarization.estimators import ESTIMATORS

LARGEST = 1e30
"""Of any number here: float32 ends at 3.4e38."""


@dataclass(frozen=True)
class Method:
    """The paper's method as reconstructed; every default is the reading that docs/method.md gives the source of.

    Raises ValueError, `switch: found ...; allowed: ...`, for a value that a switch does not have.

    >>> Method(weight_scaling_granularity="channel").weight_scaling
    'trained'
    >>> Method(weight_scaling="learned")
    Traceback (most recent call last):
    ValueError: weight_scaling: found 'learned'; allowed: 'trained', 'frozen', 'analytic', 'none'
    """

    activation_values: Literal["zero_one", "plus_minus_one"] = "zero_one"
    activation_estimator: str = "long_tailed"
    activation_window: Literal["absolute", "alpha"] = "absolute"
    activation_scaling: Literal["trained", "frozen", "none"] = "trained"
    weight_estimator: str = "long_tailed"
    weight_scaling: Literal["trained", "frozen", "analytic", "none"] = "trained"
    weight_scaling_granularity: Literal["layer", "channel"] = "layer"
    weight_scaling_l2: float = 1e-4  # lambda
    latent_std: float | None = 0.5  # None: the latent weights are not rescaled
    initial_alpha: Literal["data", "one"] = "data"
    initialization: Literal["pretrained", "scratch"] = "pretrained"

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal:
                self._one_of(name, get_args(hint))
            elif hint is bool:
                self._one_of(name, (False, True))
        self._one_of("activation_estimator", ESTIMATORS)
        self._one_of("weight_estimator", ESTIMATORS)
        self._number("weight_scaling_l2", least=0)
        if self.latent_std is not None:
            self._number("latent_std", above=0)
        if self.activation_window == "alpha" and self.activation_scaling == "none":
            raise ValueError("activation_window: found 'alpha' with activation_scaling 'none'; allowed: 'absolute'")

    def _one_of(self, name: str, choices: Iterable[Any]) -> None:
        """Refuse a value that is none of the choices: of another type, too, since 1 is no True."""
        value = getattr(self, name)
        if not any(type(value) is type(one) and value == one for one in choices):
            raise ValueError(f"{name}: found {value!r}; allowed: {', '.join(map(repr, choices))}")

    def _number(self, name: str, least: float = -inf, above: float = -inf) -> None:
        """Refuse what is no number within the bounds; keep it as a float, so that 0 and 0.0 are one value."""
        value = getattr(self, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not (least <= value <= LARGEST and value > above):
            bound = f"at least {least:g}" if least > above else f"above {above:g}"
            raise ValueError(f"{name}: found {value!r}; allowed: a number {bound} and at most {LARGEST:g}")
        object.__setattr__(self, name, float(value))
